//! minimq.

use crate::world::{HOST, heard, port, tcp};
use embassy_futures::select::{Either, select};
use embassy_net::Stack;
use embassy_net::dns::DnsQueryType;
use embassy_net::tcp::TcpSocket;
use embassy_time::Timer;
use minimq::{Buffers, ConfigBuilder, ConnectEvent, Publication, QoS, Session, TopicFilter};

pub async fn run(net: Stack<'static>) {
    let (rx, tx) = tcp();
    let (mut packets, mut sending) = ([0; 768], [0; 1_024]);
    let config = ConfigBuilder::new(Buffers::new(&mut packets, &mut sending));
    let Ok(config) = config.client_id("lamp-terminal") else { return };
    let Ok(config) = config.auth("lamp", b"sesame-sesame") else { return };
    let mut session = Session::new(config.keepalive_interval(30));
    loop {
        net.wait_config_up().await;
        let Ok(found) = net.dns_query(HOST, DnsQueryType::A).await else { continue };
        let Some(address) = found.first() else { continue };
        let mut socket = TcpSocket::new(net, &mut *rx, &mut *tx);
        socket.set_nagle_enabled(false);
        if socket.connect((*address, port())).await.is_err() {
            continue;
        }
        if let Ok(mut link) = session.connect(socket).await {
            if matches!(link.connect_event(), ConnectEvent::Connected)
                && link.subscribe(&[TopicFilter::new("lamp/set")], &[]).await.is_err()
            {
                continue;
            }
            loop {
                let state = Publication::bytes("lamp/state", b"{\"on\":true}").qos(QoS::AtLeastOnce);
                if link.publish(state).await.is_err() {
                    break;
                }
                match select(link.recv(), Timer::after_secs(1)).await {
                    Either::First(Ok(message)) => heard(0, u32::from(message.payload() == b"on")),
                    Either::First(Err(_)) => break,
                    Either::Second(()) => {}
                }
            }
        }
        Timer::after_secs(1).await;
    }
}
