//! BFD and the session.

use super::*;

#[tokio::test]
async fn bfd_takes_the_session_down_and_lets_it_come_back() {
    let mut ends = client_and_server("127.0.0.1");
    let ports = [ends[1].options.bfd_port, ends[0].options.bfd_port];
    // In the field both have the same port; on one machine each is told the other one's.
    for (end, port) in ends.iter_mut().zip(ports) {
        end.options.bfd_peer_port = Some(port);
        end.respawn();
        let interval = Duration::from_millis(100);
        end.peer().bfd = Some(settings::Bfd { interval, multiplier: 5 });
        end.order();
    }
    for end in &mut ends {
        end.wait_up().await;
        end.wait("path up", |it| it.bfd.as_ref().is_some_and(|bfd| bfd.state == "Up")).await;
    }
}
