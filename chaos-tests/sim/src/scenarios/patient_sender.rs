//! A sender that never hears the 250.

use mailraft_checkers::Op;
use mailraft_storage::PartitionId;

use crate::faults::Fault;
use crate::scenarios::events;
use crate::scenarios::script::{S, Script, Scripted, rows_at};
use crate::world::run::Ran;

const P: PartitionId = PartitionId(1);
/// How often it tries; all within a day.
const TRIES: usize = 9;
const BETWEEN_TRIES: u64 = 45 * 60 * S;
/// One clock is wrong by so many days.
const JUMPS_DAYS: [i64; 3] = [2, -3, 5];
const DAY_MS: i64 = 24 * 3_600_000;

/// It tries for hours, each time under a new id, while leaders die and one clock after another is wrong by
/// days.
pub fn for_hours(seed: u64) -> Scripted<Ran> {
    let mut s = Script::calm(seed, 3, 1)?;
    let op = Op::Deliver { marker: s.world.clients_mut().new_marker(), deduplicate: true };
    for turn in 0..TRIES {
        let (leader, home) = (s.leader(P)?, s.followers(P)?[turn % 2]);
        let sender = s.client(home, P)?;
        let lost = s.hold(events::ok_to(sender));
        let before = rows_at(&s.world, leader, P);
        s.begin(sender, op.clone());
        s.until("it is decided and applied", 2 * S, move |w| rows_at(w, leader, P) > before)?;
        s.expect("the sender does not know", s.ended(sender).is_none())?;
        s.kill(home);
        s.lose(lost);
        s.restart(home)?;
        s.wait(S)?;
        let (node, ms) = ([leader, home][turn % 2], JUMPS_DAYS[turn % JUMPS_DAYS.len()] * DAY_MS);
        let clock = s.fault(Fault::Jump { node, ms })?;
        // The next owner is made while one clock is wrong.
        if turn % 3 == 1 {
            s.kill(leader);
            s.led_by_another(P, &[leader])?;
            s.restart(leader)?;
        } else {
            s.world.actors_panic(leader);
            s.world.settle();
        }
        s.wait(S)?;
        let asker = s.client(s.followers(P)?[0], P)?;
        s.does(asker, op.clone())?;
        // Nobody asks anything for long: all may as well stand still.
        s.sleep_all(BETWEEN_TRIES);
        s.wait(BETWEEN_TRIES + S)?;
        s.over(clock)?;
        s.wait(S)?;
        s.led_by_another(P, &[])?;
    }
    let home = s.followers(P)?[0];
    let sender = s.client(home, P)?;
    s.does(sender, op)?;
    let there = s.messages(sender, "INBOX")?;
    s.expect("it is there once", there == 1)?;
    s.expect_clean()
}
