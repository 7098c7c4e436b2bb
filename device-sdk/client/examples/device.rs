//! A device: says what it can do, carries commands out, follows what is desired of it, and reports its state. It takes the
//! place of the demo's lamp while it runs. With `parlor demo` running:
//!
//! `cargo run -p parlor-client --example device` and then `parlor cmd --demo alice lamp set on=true`

use parlor_client::{Client, Event, Listen, Options, Outcome};
use serde_json::{Value, json};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "mqtt://lamp:parlor-demo@127.0.0.1".to_owned());
    // How many commands to live for.
    let mut left: u32 = std::env::args().nth(2).map_or(Ok(u32::MAX), |count| count.parse())?;
    let options = Options { listen: Listen::Device, terminal: Some("demo-lamp".to_owned()), ..Options::default() };
    let mut client = Client::connect(&url, options).await?;
    let mut is_on = false;
    while left > 0 {
        let Some(event) = client.next().await else { break };
        match event {
            Event::Connected => {
                let args = json!({"on": {"type": "bool"}});
                client.describe(json!({"name": "Lamp", "commands": {"set": {"args": args}}, "state": args})).await?;
                client.report(json!({ "on": is_on })).await?;
                println!("here I am");
            }
            Event::Command { id, name, order } => {
                // It has the command, whatever becomes of it.
                client.settle();
                let outcome = match (name.as_str(), order.args["on"].as_bool()) {
                    ("set", Some(on)) => {
                        is_on = on;
                        println!("{} makes it {}", order.from, if on { "light" } else { "dark" });
                        // First the state, so that it is known whose command changed it.
                        client.report(json!({ "on": on })).await?;
                        Outcome::Done(json!({ "on": on }))
                    }
                    _ => Outcome::Rejected("I can only be set on=true or on=false".to_owned()),
                };
                client.command_state(&id, outcome).await?;
                left -= 1;
            }
            Event::Delta { desired, .. } => {
                is_on = desired.get("on").and_then(Value::as_bool).unwrap_or(is_on);
                client.report(json!({ "on": is_on })).await?;
            }
            Event::Disconnected { why, .. } => println!("{why}"),
            Event::Ended { error } => return Err(error.into()),
            _ => {}
        }
    }
    client.close().await;
    Ok(())
}
