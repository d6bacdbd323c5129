use std::net::TcpStream;

use super::*;
use crate::worker::listener::open_group;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

fn group(workers: usize) -> ListeningGroup {
    let configured = "127.0.0.1:0".parse().unwrap();
    let sockets = open_group(configured, workers).unwrap();
    ListeningGroup { configured, address: sockets[0].local_addr().unwrap(), sockets }
}

fn copy(group: &ListeningGroup) -> ListeningGroup {
    let sockets = group.sockets.iter().map(|socket| socket.try_clone().unwrap()).collect();
    ListeningGroup { sockets, ..*group }
}

/// A daemon that offers these groups to whoever comes, on a thread of its own.
fn predecessor(
    state_dir: &Path,
    groups: Vec<ListeningGroup>,
) -> (tokio::runtime::Runtime, tokio::task::JoinHandle<()>) {
    let runtime = runtime();
    let socket = {
        let _context = runtime.enter();
        HandoverSocket::bind(state_dir).unwrap()
    };
    let task = runtime.spawn(async move {
        let estate = || Ok(Estate { hash_seed: 0x5eed, groups: groups.iter().map(copy).collect() });
        socket.successor(estate).await;
    });
    (runtime, task)
}

#[test]
fn a_client_that_waits_in_a_listener_is_served_by_the_successor() {
    let folder = tempfile::tempdir().unwrap();
    // More than go into one message of descriptors.
    let groups = vec![group(1), group(150)];
    let address = groups[0].address;
    let (_runtime, _task) = predecessor(folder.path(), groups);
    let waiting = TcpStream::connect(address).unwrap();
    let mut found = Predecessor::find(folder.path()).unwrap().unwrap();
    assert_eq!(found.hash_seed(), 0x5eed);
    let configured = "127.0.0.1:0".parse().unwrap();
    let (first, second) = (found.take_group(configured), found.take_group(configured));
    assert!(found.take_group(configured).is_none());
    assert_eq!(second.unwrap().sockets.len(), 150);
    let sockets = first.unwrap().sockets;
    sockets[0].set_nonblocking(false).unwrap();
    let (_served, peer) = sockets[0].accept().unwrap();
    assert_eq!(peer, waiting.local_addr().unwrap());
}

#[test]
fn a_successor_that_gives_up_changes_nothing_and_the_next_one_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let (runtime, task) = predecessor(folder.path(), vec![group(2)]);
    drop(Predecessor::find(folder.path()).unwrap().unwrap());
    let next = Predecessor::find(folder.path()).unwrap().unwrap();
    assert!(!task.is_finished());
    wire::send(&next.stream, &Word::Drain).unwrap();
    runtime.block_on(task).unwrap();
    assert!(!socket_path(folder.path()).exists(), "the socket's file goes with the daemon");
}

#[test]
fn where_no_daemon_runs_there_is_none_to_take_over_from() {
    let folder = tempfile::tempdir().unwrap();
    assert!(Predecessor::find(folder.path()).unwrap().is_none());
    // A dead daemon has left its socket.
    drop(std::os::unix::net::UnixListener::bind(socket_path(folder.path())).unwrap());
    assert!(Predecessor::find(folder.path()).unwrap().is_none());
}

#[test]
fn a_daemon_of_another_version_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let listener = std::os::unix::net::UnixListener::bind(socket_path(folder.path())).unwrap();
    let other = std::thread::spawn(move || {
        let offer = Offer { version: VERSION + 1, hash_seed: 0, groups: vec![] };
        wire::send(&listener.accept().unwrap().0, &offer).unwrap();
    });
    let error = Predecessor::find(folder.path()).unwrap_err();
    other.join().unwrap();
    assert!(matches!(error, HandoverError::Version { theirs } if theirs == VERSION + 1), "{error}");
}
