//! Bytes over TCP.

use crate::world::{HOST, heard, port, tcp};
use embassy_net::Stack;
use embassy_net::dns::DnsQueryType;
use embassy_net::tcp::TcpSocket;
use embassy_time::{Duration, Timer, with_timeout};
use embedded_io_async::Write;

pub async fn run(net: Stack<'static>) {
    let (rx, tx) = tcp();
    loop {
        net.wait_config_up().await;
        let Ok(found) = net.dns_query(HOST, DnsQueryType::A).await else { continue };
        let Some(address) = found.first() else { continue };
        let mut socket = TcpSocket::new(net, &mut *rx, &mut *tx);
        socket.set_nagle_enabled(false);
        if socket.connect((*address, port())).await.is_err() {
            continue;
        }
        let (mut reader, mut writer) = socket.split();
        loop {
            if writer.write_all(b"on").await.is_err() || writer.flush().await.is_err() {
                break;
            }
            let mut byte = [0];
            match with_timeout(Duration::from_secs(1), reader.read(&mut byte)).await {
                Ok(Ok(1)) => heard(0, u32::from(byte[0])),
                Err(_) => {}
                _ => break,
            }
        }
        Timer::after_secs(1).await;
    }
}
