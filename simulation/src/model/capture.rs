//! Capture: what `Proposer` in `quorate-replication` does with fates, one transaction to a proposal.

use super::cluster::{Cluster, Steps};
use super::list::List;
use super::log::{self, Payload};
use super::world::{Era, LATE, Late, OUT, REFUSED, World};
use super::{Action, Omission};

/// What Raft does with a proposal at once.
#[derive(Clone, Copy)]
enum How {
    Appended,
    Refused,
    Late,
}

/// What became of a proposal, as far as capture can know.
enum Fate {
    Accepted,
    /// Certainly not in the log, or in it and rejected for its place in the order.
    Out {
        refused: bool,
    },
    /// Rejected for another reason, or nobody knows.
    Over,
}

impl<const N: usize> Cluster<N> {
    pub(super) fn capture(&mut self, world: &World<N>, node: usize, steps: &mut Steps<N>) {
        let own = world.nodes[node];
        let capture = own.capture;
        let Some(epoch) = capture.alive() else { return };
        let lost = Action::LoseCapture { node };
        self.fault(
            world,
            lost,
            steps,
            |left| &mut left.captures,
            |_, world| {
                world.nodes[node].capture.end();
            },
        );
        if let Some(content) = self.next_content(world, node)
            && !capture.goes_back()
        {
            let leads = log::leader(own.leading, node) == epoch.leader();
            let action = Action::Propose { node, content };
            let how = if leads { How::Appended } else { How::Refused };
            self.take(world, action, steps, |cluster, world| {
                cluster.propose(world, node, content, how);
            });
            if leads {
                let action = Action::Refuse { node, content };
                self.fault(
                    world,
                    action,
                    steps,
                    |left| &mut left.refusals,
                    |cluster, world| cluster.propose(world, node, content, How::Refused),
                );
                if own.late.is_none() {
                    let action = Action::Delay { node, content };
                    self.fault(
                        world,
                        action,
                        steps,
                        |left| &mut left.delays,
                        |cluster, world| cluster.propose(world, node, content, How::Late),
                    );
                }
            }
        }
        if let Some(oldest) = capture.oldest() {
            let fate = self.fate(world, node, epoch, capture.at[usize::from(oldest)]);
            if let Some(fate) = fate {
                self.take(world, Action::Settle { node }, steps, |_, world| {
                    settle(world, node, oldest, &fate);
                });
            }
            // The channel to a Raft that does not lead any more may close.
            if log::leader(own.leading, node) != epoch.leader() {
                self.take(world, Action::LoseFate { node }, steps, |_, world| {
                    world.nodes[node].capture.end();
                });
            }
        }
    }

    /// The next transaction to propose: one that was refused before, or one not read yet.
    fn next_content(&self, world: &World<N>, node: usize) -> Option<u8> {
        let own = world.nodes[node];
        let again = own.capture.read.get(own.capture.proposed);
        let mut unread = own.server.tail.iter();
        again.or_else(|| unread.find(|one| !own.capture.read.contains(*one)))
    }

    fn propose(&mut self, world: &mut World<N>, node: usize, content: u8, how: How) {
        let own = &mut world.nodes[node];
        let Some(epoch) = own.capture.epoch else {
            return;
        };
        let at = usize::from(own.capture.proposed);
        if own.capture.read.len() == own.capture.proposed {
            own.capture.read = own.capture.read.with(content);
        }
        own.capture.proposed += 1;
        let late = Late {
            epoch,
            number: own.capture.proposed,
            content,
        };
        let place = match how {
            How::Appended => self.append_transaction(world, node, late),
            How::Refused => REFUSED,
            How::Late => {
                own.late = Some(late);
                LATE
            }
        };
        world.nodes[node].capture.at[at] = place;
        if self.omits(Omission::AckAfterAcceptance) {
            release(world, node, content);
        }
    }

    fn append_transaction(&mut self, world: &mut World<N>, node: usize, one: Late) -> u32 {
        let payload = Payload::Transaction {
            epoch: one.epoch,
            number: one.number,
            name: world.names[usize::from(one.content)],
            content: one.content,
        };
        let own = &mut world.nodes[node];
        own.log = self.log.append(own.log, one.epoch.leader(), payload);
        own.log
    }

    /// A late proposal reaches Raft, which takes it if its node still leads as it did.
    pub(super) fn late(&mut self, world: &World<N>, node: usize, steps: &mut Steps<N>) {
        let own = world.nodes[node];
        let Some(late) = own.late else { return };
        self.take(world, Action::Arrive { node }, steps, |cluster, world| {
            let mut at = REFUSED;
            if log::leader(own.leading, node) == late.epoch.leader() {
                at = cluster.append_transaction(world, node, late);
            }
            let own = &mut world.nodes[node];
            own.late = None;
            let waits = &mut own.capture.at[usize::from(late.number) - 1];
            if own.capture.epoch == Some(late.epoch) && *waits == LATE {
                *waits = at;
            }
        });
    }

    /// None while it is open.
    fn fate(&self, world: &World<N>, node: usize, epoch: Era, at: u32) -> Option<Fate> {
        if at == REFUSED {
            return Some(Fate::Out { refused: true });
        }
        if at == LATE {
            return None;
        }
        let own = world.nodes[node];
        let place = self.log.get(at);
        if own.applied < place.index() {
            return None;
        }
        if self.log.at(world.committed, place.index()) != at {
            // Another entry is in its place: what was proposed may still come in no other.
            return Some(Fate::Over);
        }
        debug_assert_eq!(
            place.id.leader,
            epoch.leader(),
            "proposed to this leader only"
        );
        Some(if log::is_accepted(place.outcome) {
            Fate::Accepted
        } else if log::is_out_of_order(place.outcome) {
            Fate::Out { refused: false }
        } else {
            Fate::Over
        })
    }
}

fn settle<const N: usize>(world: &mut World<N>, node: usize, oldest: u8, fate: &Fate) {
    let capture = &mut world.nodes[node].capture;
    let back = capture.goes_back();
    match fate {
        Fate::Accepted if !back => {
            let content = capture.read.get(oldest);
            capture.at[usize::from(oldest)] = 0;
            capture.settled += 1;
            if let Some(content) = content {
                release(world, node, content);
            }
        }
        Fate::Out { refused } if back || *refused => {
            capture.at[usize::from(oldest)] = OUT;
            if capture.oldest().is_none() {
                // All behind the refused one are out: they are proposed again in their order.
                capture.at[usize::from(capture.settled)..].fill(0);
                capture.proposed = capture.settled;
            }
        }
        Fate::Accepted | Fate::Out { .. } | Fate::Over => capture.end(),
    }
}

/// An ACK up to this transaction: it and all before it are committed, and their clients told.
fn release<const N: usize>(world: &mut World<N>, node: usize, content: u8) {
    let server = &mut world.nodes[node].server;
    let Some(at) = server.tail.iter().position(|one| one == content) else {
        return;
    };
    let count = at as u8 + 1;
    let kept = server.tail.skip(count);
    let released: List = server.tail.filter(|one| !kept.contains(one));
    server.engine = server.engine.and(released);
    server.tail = kept;
    world.told |= released.set();
}
