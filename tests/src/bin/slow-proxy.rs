//! A long line for the benchmark: `slow-proxy LISTEN SERVER ROUND_TRIP_MS BYTES_PER_SECOND`, both addresses as `IP:PORT`.
//! It runs until it is ended, and says `ready` once it listens.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a tool of the tests")]

use std::time::Duration;

use ferry_tests::faults::{Line, Proxy};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, server, round_trip, rate] = arguments.as_slice() else {
        panic!("usage: slow-proxy LISTEN SERVER ROUND_TRIP_MS BYTES_PER_SECOND");
    };
    let round_trip = Duration::from_millis(round_trip.parse().expect("milliseconds"));
    let line = Line::slow(round_trip, rate.parse().expect("bytes per second"));
    let _proxy = Proxy::listen(listen.parse().expect("IP:PORT"), server.parse().expect("IP:PORT"), line);
    println!("ready");
    loop {
        std::thread::park();
    }
}
