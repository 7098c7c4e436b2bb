//! A first program for a board: what it sends comes back. It proves network, clock and executor without a broker.

use crate::{Args, exit, say};
use embassy_net::tcp::TcpSocket;
use embassy_net::{Ipv4Address, Stack};
use embassy_time::{Duration, Instant, Timer, with_timeout};
use embedded_io_async::Write;

/// Small messages sent.
const ROUNDS: u32 = 200;

/// Sends to `port=` of the host and checks what comes back. Ends the program when something is wrong.
pub async fn run(stack: Stack<'_>, args: &Args) {
    let began = Instant::now();
    Timer::after_millis(20).await;
    let slept = began.elapsed().as_millis();
    check((20..40).contains(&slept), "a timer of 20 ms rang at another time");
    let (mut rx, mut tx) = ([0; 1_024], [0; 1_024]);
    let mut socket = TcpSocket::new(stack, &mut rx, &mut tx);
    socket.set_timeout(Some(Duration::from_secs(10)));
    let port = args.number("port").unwrap_or(7);
    let connected = socket.connect((Ipv4Address::new(10, 0, 2, 2), port)).await;
    check(connected.is_ok(), "nobody answers at that port");
    let began = Instant::now();
    for round in 0..ROUNDS {
        let sent = round.to_be_bytes();
        check(socket.write_all(&sent).await.is_ok() && socket.flush().await.is_ok(), "it could not send");
        let mut back = [0; 4];
        let mut have = 0;
        while have < back.len() {
            match with_timeout(Duration::from_secs(5), socket.read(&mut back[have..])).await {
                Ok(Ok(read)) if read > 0 => have += read,
                _ => check(false, "the answer did not come"),
            }
        }
        check(back == sent, "something else came back");
    }
    say!("echo {ROUNDS} rounds in {} ms", began.elapsed().as_millis());
}

fn check(good: bool, what: &str) {
    if !good {
        say!("echo failed: {what}");
        exit(1);
    }
}
