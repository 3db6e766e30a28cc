//! Always tracked flows in slots that are not contested: recorded by the kernel's program, entered
//! by it or from user space, each once, and under the table that they were recorded under.

use lb_common::backend::BackendId;
use lb_common::flow::State;
use lb_common::record::WAITING;
use lb_tests::packet::{ACK, Ip, SYN};
use lb_userspace::dataplane::Dataplane;

use super::fixtures::in_kernel;
use super::world::{ALWAYS, CLIENT_V4, GENERATION, GUE4, kernel, stay_on_one_cpu, table};

fn send(kernel: &Dataplane, port: u16, flags: u8) {
    in_kernel(kernel, &Ip::new(CLIENT_V4, ALWAYS).tcp(port, 80, flags, b"").frame());
}

fn entries(kernel: &Dataplane) -> Vec<(u16, State)> {
    kernel.flows().map(|flow| (flow.owner.0, flow.state)).collect()
}

#[test]
fn the_sixteenth_packet_enters_sixteen() {
    let Some(kernel) = kernel() else { return };
    stay_on_one_cpu();
    let last = u16::try_from(WAITING).unwrap();
    for port in 1..last {
        send(&kernel, port, SYN);
        assert_eq!(entries(&kernel), []);
    }
    send(&kernel, last, SYN);
    assert_eq!(entries(&kernel), vec![(GUE4, State::Unconfirmed); WAITING]);
    // And the next sixteen, the second packets of the same flows.
    (1..=last).for_each(|port| send(&kernel, port, ACK));
    assert_eq!(entries(&kernel), vec![(GUE4, State::Confirmed); WAITING]);
}

#[test]
fn what_waits_on_an_idle_cpu_is_entered_once() {
    let Some(kernel) = kernel() else { return };
    stay_on_one_cpu();
    send(&kernel, 1, ACK);
    for _ in 0..3 {
        kernel.enter_records();
        // Entered twice it would be a flow of two packets.
        assert_eq!(entries(&kernel), [(GUE4, State::Unconfirmed)]);
    }
    // Its place is used again by the fifteen that follow, of another flow.
    (1..WAITING).for_each(|_| send(&kernel, 2, ACK));
    let mut found = entries(&kernel);
    found.sort_by_key(|(_, state)| state.is_confirmed());
    assert_eq!(found, [(GUE4, State::Unconfirmed), (GUE4, State::Confirmed)]);
}

#[test]
fn a_change_of_the_table_finds_all_flows_entered() {
    let Some(mut kernel) = kernel() else { return };
    stay_on_one_cpu();
    send(&kernel, 1, SYN);
    send(&kernel, 1, ACK);
    // All slots go to another backend, and a window is open.
    let (slots, _) = table(GUE4).unwrap();
    let now = 0x8000 | 8;
    let history = vec![[GUE4, GUE4, 0, 0]; slots.len()];
    kernel.publish_table(GUE4, &vec![now; slots.len()], &history, GENERATION + 1).unwrap();
    assert_eq!(entries(&kernel), [(GUE4, State::Confirmed)]);
    // A new one is entered at once, and where it went.
    send(&kernel, 2, SYN);
    let new = kernel.flows().find(|flow| flow.owner == BackendId(8)).unwrap();
    assert_eq!((new.state, kernel.flows().count()), (State::Unconfirmed, 2));
}
