//! The operator's side end to end: the real program, its command line, its signals, its HTTP, its log.
//!
//! Every test has a broker of its own on free ports and a data directory of its own. What a test waits for is an event
//! (a packet, an answer, a line of the log, the end of a process), never a time.

#![allow(clippy::doc_markdown, reason = "QoS and its like are the specification's words")]

mod operate {
    use parlor::admin::OPENAPI;

    mod accounts;
    mod backup;
    mod blobs;
    mod bounds;
    mod config;
    mod http;
    mod http_im;
    mod jwt;
    mod log;
    mod packaging;
    mod pairing;
    mod reload;
    // The answers of a real broker are held against the document with the same eyes as those of a made-up one.
    #[path = "../../../broker/src/admin/tests/schema.rs"]
    mod schema;
    mod stop;
    mod tls;
    mod tokens;
    mod tools;
    mod transport;
}
