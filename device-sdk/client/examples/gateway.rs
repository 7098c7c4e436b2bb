//! A gateway that loses nothing: each line on standard input becomes a message, and a file keeps it until the broker has it,
//! whatever becomes of the broker, the network or this process. With `parlor demo` running:
//!
//! `printf 'the door is open\nthe door is closed\n' | cargo run -p parlor-client --example gateway -- alice`

use parlor_client::{Client, Event, Handle, Options, OutboxKind};
use std::collections::BTreeSet;
use std::io::BufRead;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let to = args.next().ok_or("usage: gateway ACCOUNT [URL] [OUTBOX]")?;
    let url = args.next().unwrap_or_else(|| "mqtt://bob:parlor-demo@127.0.0.1".to_owned());
    let outbox = args.next().map_or_else(|| std::env::temp_dir().join("parlor-gateway-outbox"), Into::into);
    let options = Options { outbox: OutboxKind::File(outbox), ..Options::default() };
    let mut client = Client::start(&url, options).await?;
    let mut reader = tokio::spawn(send_lines(client.handle(), to));
    let (mut sent, mut ended, mut is_all) = (BTreeSet::new(), BTreeSet::new(), false);
    // What an earlier run could not get rid of is waited for too.
    while !is_all || !sent.is_subset(&ended) || client.with(|messenger| messenger.waiting()) > 0 {
        let event = tokio::select! {
            ids = &mut reader, if !is_all => {
                (sent, is_all) = (ids?, true);
                continue;
            }
            event = client.next() => event,
        };
        match event {
            Some(Event::Received { id, seq, .. }) => {
                println!("{id}: received, number {}", seq.unwrap_or(0));
                ended.insert(id);
            }
            Some(Event::Lost { id, why, .. }) => {
                println!("{id}: lost, {}: {}", why.code, why.text);
                ended.insert(id);
            }
            Some(Event::Disconnected { why, retry_in }) => {
                println!("{why}; the next try comes in {:.1} s", retry_in.as_secs_f32());
            }
            Some(Event::Ended { error }) => return Err(error.into()),
            Some(_) => {}
            None => break,
        }
    }
    println!("{} left for the next run", client.close().await);
    Ok(())
}

/// Sends each line; the ids.
async fn send_lines(handle: Handle, to: String) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    let lines =
        tokio::task::spawn_blocking(|| std::io::stdin().lock().lines().map_while(Result::ok).collect::<Vec<_>>());
    for line in lines.await.unwrap_or_default() {
        match handle.send(&to, line).await {
            // From here on it is on disk.
            Ok(id) => drop(ids.insert(id)),
            Err(error) => println!("not sent: {error}"),
        }
    }
    ids
}
