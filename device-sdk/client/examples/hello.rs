//! Three calls to the first message. With `parlor demo` running:
//!
//! `cargo run -p parlor-client --example hello`
//! `cargo run -p parlor-client --example hello -- parlor+tcp://alice:parlor-demo@127.0.0.1`

use parlor_client::{Client, Event, Options};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "mqtt://alice:parlor-demo@127.0.0.1".to_owned());
    let mut client = Client::connect(&url, Options::default()).await?;
    let id = client.send("lamp", "status").await?;
    println!("sent as {id}");
    while let Some(event) = client.next().await {
        match event {
            Event::Received { id, seq, .. } => println!("{id} is on the broker's disk, as number {}", seq.unwrap_or(0)),
            Event::Message { with, message } if !message.backfill => {
                println!("{with}: {}", message.shown());
                break;
            }
            Event::Lost { why, .. } => return Err(format!("{}: {}", why.code, why.text).into()),
            _ => {}
        }
    }
    client.close().await;
    Ok(())
}
