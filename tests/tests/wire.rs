//! Conformance on the wire: one test a normative statement or a small group of them, bytes over real sockets.
//!
//! Every test cites what it holds the broker to: `[MQTT5-…]` is a statement of MQTT 5.0, `[MQTT3-…]` one of 3.1.1.
//! The tests share one broker process where its state allows (topics and client identifiers are unique to a test) and
//! start their own where they need limits, accounts or a restart. With `MQTT_TEST_ADDR=127.0.0.1:1883` the shared part
//! speaks to any other broker that listens there, which is how the tests themselves are checked.

#![allow(clippy::doc_markdown, reason = "QoS and its like are the specification's words")]

mod wire {
    mod accounts;
    mod common;
    mod connect;
    mod control;
    mod gaps;
    mod im_blob;
    mod im_cut;
    mod im_deliver;
    mod im_messages;
    mod im_protocol;
    mod im_requests;
    mod im_rights;
    mod limits;
    mod properties;
    mod publish;
    mod quic;
    mod quic_early;
    mod quic_life;
    mod quic_native;
    mod quic_streams;
    mod restart;
    mod retained;
    mod rights;
    mod robust;
    mod scram;
    mod session;
    mod subscribe;
    mod sys;
    mod websocket;
    mod will;
}
