//! rust-mqtt.

use crate::world::{HOST, heard, port, tcp};
use core::num::NonZero;
use embassy_futures::select::{Either, select};
use embassy_net::Stack;
use embassy_net::dns::DnsQueryType;
use embassy_net::tcp::TcpSocket;
use embassy_time::Timer;
use rust_mqtt::buffer::BumpBuffer;
use rust_mqtt::client::Client;
use rust_mqtt::client::event::Event;
use rust_mqtt::client::options::{ConnectOptions, PublicationOptions, SubscriptionOptions, TopicReference};
use rust_mqtt::config::KeepAlive;
use rust_mqtt::types::{MqttBinary, MqttString, TopicFilter, TopicName};

pub async fn run(net: Stack<'static>) {
    let (rx, tx) = tcp();
    let mut memory = [0; 1_024];
    loop {
        net.wait_config_up().await;
        let Ok(found) = net.dns_query(HOST, DnsQueryType::A).await else { continue };
        let Some(address) = found.first() else { continue };
        let mut socket = TcpSocket::new(net, &mut *rx, &mut *tx);
        socket.set_nagle_enabled(false);
        if socket.connect((*address, port())).await.is_err() {
            continue;
        }
        let mut buffer = BumpBuffer::new(&mut memory);
        let mut client = Client::<'_, '_, _, _, 1, 1, 1, 1, 16, 0, 1>::new(&mut buffer);
        let _ = talk(&mut client, socket).await;
        Timer::after_secs(1).await;
    }
}

async fn talk<'c, 'b>(
    client: &mut Client<'_, 'c, TcpSocket<'b>, BumpBuffer<'c>, 1, 1, 1, 1, 16, 0, 1>,
    socket: TcpSocket<'b>,
) -> Option<()> {
    let options = ConnectOptions::new()
        .keep_alive(KeepAlive::Seconds(NonZero::new(30)?))
        .user_name(MqttString::try_from("lamp").ok()?)
        .password(MqttBinary::try_from("sesame-sesame").ok()?);
    client.connect(socket, &options, Some(MqttString::try_from("lamp-terminal").ok()?)).await.ok()?;
    let filter = TopicFilter::new(MqttString::from_str("lamp/set").ok()?)?;
    client.subscribe(filter, &SubscriptionOptions::new().at_least_once()).await.ok()?;
    let topic = TopicReference::Name(TopicName::new(MqttString::from_str("lamp/state").ok()?)?);
    loop {
        let options = PublicationOptions::new(topic.as_borrowed()).at_least_once();
        client.publish(&options, "{\"on\":true}".into()).await.ok()?;
        // One second for the acknowledgement and what else comes.
        let mut second = Timer::after_secs(1);
        loop {
            match select(client.poll(), &mut second).await {
                Either::First(Ok(Event::Publish(publish))) => heard(0, u32::from(publish.message.as_bytes() == b"on")),
                Either::First(Ok(_)) => {}
                Either::First(Err(_)) => return None,
                Either::Second(()) => break,
            }
        }
        client.ping().await.ok()?;
        // SAFETY: nothing of what was received is held any more.
        unsafe { client.buffer_mut().reset() };
    }
}
