use super::*;

fn connections(per_client: usize, requests: usize) -> Arc<Connections> {
    Connections::new(&Limits { per_client, requests, ..Limits::default() })
}

async fn must_leave(guard: &ConnectionGuard) -> bool {
    tokio::time::timeout(Duration::from_millis(10), guard.evicted()).await.is_ok()
}

const HERE: [&str; 2] = ["10.0.0.1", "10.0.0.2"];

fn ip(client: usize) -> IpAddr {
    HERE[client].parse().expect("address")
}

fn guard(connections: &Arc<Connections>, client: usize) -> Option<Arc<ConnectionGuard>> {
    let address = ip(client);
    connections.room_for(address).map(|_| Arc::new(connections.admit(address)))
}

#[tokio::test]
async fn the_one_that_is_idle_for_the_longest_time_gives_way() {
    let connections = connections(2, 9);
    let (first, second, other) =
        (guard(&connections, 0).expect("a"), guard(&connections, 0).expect("b"), guard(&connections, 1).expect("c"));
    // the first asks for something, and is then not the longest idle one
    drop(first.begin_request(ip(0), false, Duration::ZERO).await.expect("its turn"));
    let third = guard(&connections, 0).expect("room is made");
    assert!(must_leave(&second).await && !must_leave(&first).await && !must_leave(&other).await);
    drop(second);
    let busy = (
        first.begin_request(ip(0), false, Duration::ZERO).await,
        third.begin_request(ip(0), false, Duration::ZERO).await,
    );
    assert!(guard(&connections, 0).is_none(), "both are at work");
    assert!(guard(&connections, 1).is_some(), "others are not in the way");
    drop(busy);
    connections.make_room();
    assert!(must_leave(&other).await);
    drop((first, third, other));
    assert_eq!((connections.len(), connections.lock().clients.len()), (0, 0));
}

#[tokio::test]
async fn a_client_at_its_limit_makes_room_by_its_own_connections_only() {
    let connections = connections(2, 9);
    let other = guard(&connections, 1).expect("the one that is idle for the longest time");
    let mut own = Vec::from([0, 0].map(|client| guard(&connections, client).expect("below the limit")));
    assert_eq!(connections.room_for(ip(1)), Some(Room::Anybodys));
    for _ in 0..5 {
        assert_eq!(connections.room_for(ip(0)), Some(Room::ItsOwn));
        assert!(must_leave(&own.remove(0)).await);
        own.push(Arc::new(connections.admit(ip(0))));
    }
    assert!(!must_leave(&other).await);
}

#[tokio::test]
async fn requests_of_one_client_wait_for_one_another_on_whatever_connection() {
    let connections = connections(9, 1);
    let (first, second, other) =
        (guard(&connections, 0).expect("a"), guard(&connections, 0).expect("b"), guard(&connections, 1).expect("c"));
    let served = first.begin_request(ip(0), false, Duration::ZERO).await.expect("its turn");
    assert!(second.begin_request(ip(0), false, Duration::from_millis(10)).await.is_none());
    assert!(other.begin_request(ip(1), false, Duration::ZERO).await.is_some());
    drop(served);
    assert!(second.begin_request(ip(0), false, Duration::from_millis(10)).await.is_some());
    connections.end_idle(Instant::now() + Duration::from_secs(3600));
    assert!(must_leave(&first).await && must_leave(&second).await);
}

#[tokio::test]
async fn of_the_requests_that_wait_few_bring_a_body_and_no_more_than_there_may_be_connections() {
    let connections = Connections::new(&Limits { per_client: 5, requests: 16, ..Limits::default() });
    let guard = guard(&connections, 0).expect("a");
    let mut served = Vec::new();
    for n in 0..16 {
        served.push(guard.begin_request(ip(0), n % 4 == 0, Duration::ZERO).await.expect("its turn"));
    }
    let mut waiting = Vec::new();
    for has_body in [true, true, true, true, false] {
        let mut next = Box::pin(guard.begin_request(ip(0), has_body, Duration::from_secs(60)));
        assert!(tokio::time::timeout(Duration::from_millis(5), &mut next).await.is_err());
        waiting.push(next);
        let at_once = guard.begin_request(ip(0), true, Duration::from_secs(60));
        let is_refused = tokio::time::timeout(Duration::from_millis(5), at_once).await.is_ok();
        assert_eq!(is_refused, waiting.len() >= 4);
    }
    assert!(guard.begin_request(ip(0), false, Duration::from_secs(60)).await.is_none());
    drop(waiting.pop());
    let client = |of: fn(&Client) -> usize| of(&connections.lock().clients[&ip(0)]);
    assert_eq!((client(|c| c.waiting), client(|c| c.waiting_bodies)), (4, 4));
    served.clear();
    for next in waiting {
        served.push(next.await.expect("its turn"));
    }
    served.truncate(2);
    assert_eq!((client(|c| c.waiting), client(|c| c.waiting_bodies)), (0, 0));
    assert!(guard.begin_request(ip(0), true, Duration::from_millis(5)).await.is_some(), "two of four have a body");
    served.push(guard.begin_request(ip(0), true, Duration::ZERO).await.expect("three"));
    served.push(guard.begin_request(ip(0), true, Duration::ZERO).await.expect("four"));
    assert!(guard.begin_request(ip(0), true, Duration::from_millis(5)).await.is_none(), "and no more have");
    assert!(guard.begin_request(ip(0), false, Duration::ZERO).await.is_some(), "which is nothing to others");
}

#[tokio::test]
async fn a_request_that_is_taken_back_while_it_waits_leaves_its_connection_idle() {
    let connections = connections(9, 1);
    let (first, second) = (guard(&connections, 0).expect("a"), guard(&connections, 0).expect("b"));
    let served = first.begin_request(ip(0), false, Duration::ZERO).await.expect("its turn");
    let mut waiting = Box::pin(second.begin_request(ip(0), false, Duration::from_secs(60)));
    assert!(tokio::time::timeout(Duration::from_millis(10), &mut waiting).await.is_err());
    connections.end_idle(Instant::now() + Duration::from_secs(3600));
    assert!(!must_leave(&second).await, "it waits for an answer");
    drop((waiting, served));
    connections.end_idle(Instant::now() + Duration::from_secs(3600));
    assert!(must_leave(&second).await);
}

#[tokio::test]
async fn requests_by_a_proxy_are_those_of_whom_it_speaks_for() {
    let proxies = [HERE[0].parse().expect("network")].into_iter().collect();
    let connections = Connections::new(&Limits { per_client: 3, requests: 1, proxies, ..Limits::default() });
    let by: Vec<_> = (0..9).map(|_| guard(&connections, 0).expect("a proxy has as many as it needs")).collect();
    let (one, two): (IpAddr, IpAddr) = ("1.1.1.1".parse().expect("ip"), "2001:db8::1".parse().expect("ip"));
    let served = by[0].begin_request(one, false, Duration::ZERO).await.expect("its turn");
    assert!(by[1].begin_request(one, false, Duration::from_millis(10)).await.is_none(), "one at a time");
    let _others = (
        by[1].begin_request(two, false, Duration::ZERO).await.expect("another's turn"),
        by[2].begin_request(ip(0), false, Duration::ZERO).await.expect("the proxy's own"),
    );
    // so many may wait, and one more is told at once
    let mut waiting: Vec<_> =
        by[3..5].iter().map(|by| Box::pin(by.begin_request(one, false, Duration::from_secs(60)))).collect();
    for waiting in &mut waiting {
        assert!(tokio::time::timeout(Duration::from_millis(10), waiting).await.is_err());
    }
    assert!(by[5].begin_request(one, false, Duration::from_secs(60)).await.is_none());
    drop(served);
    assert!(waiting.remove(0).await.is_some());
    drop(waiting);
    assert!(by[5].begin_request(one, false, Duration::from_secs(60)).await.is_some());
    assert_eq!(connections.lock().clients.len(), 2, "who has nothing under way is forgotten");
}

#[test]
fn an_ipv6_network_is_one_client() {
    let of = |text: &str| network(text.parse().expect("address"));
    assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
    assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
    assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
}

#[tokio::test]
async fn who_takes_nothing_of_an_answer_is_ended_and_who_takes_is_not() {
    let connections = connections(9, 9);
    let (still, takes) = (guard(&connections, 0).expect("a"), guard(&connections, 1).expect("b"));
    let _served = (
        still.begin_request(ip(0), false, Duration::ZERO).await,
        takes.begin_request(ip(1), false, Duration::ZERO).await,
    );
    let (_answer, taken) = (still.begin_answer(), takes.begin_answer());
    let limit = Limits::default().stall * STALLS;
    connections.end_idle(Instant::now() + limit / 2);
    assert!(!must_leave(&still).await && !must_leave(&takes).await);
    std::thread::sleep(Duration::from_millis(30));
    taken.taken();
    connections.end_idle(Instant::now() + limit - Duration::from_millis(20));
    assert!(must_leave(&still).await && !must_leave(&takes).await);
}
