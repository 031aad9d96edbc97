use std::time::Duration;

use quorate_types::Epoch;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::route::Route;

/// An order to keep new read-write connections waiting, since the primary of this epoch is about
/// to be replaced. It needs nobody to end it: it is over with the next epoch, or when its time is
/// up, so a switchover that failed, or whose node died, holds nobody for long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hold {
    epoch: Epoch,
    until: Instant,
}

impl Hold {
    pub(crate) fn new(epoch: Epoch, longest: Duration) -> Self {
        let until = Instant::now() + longest;
        Self { epoch, until }
    }

    fn lasts(&self, known: Option<Epoch>) -> bool {
        known <= Some(self.epoch) && Instant::now() < self.until
    }
}

/// The order in force, if there is one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Holding {
    order: watch::Sender<Option<Hold>>,
}

impl Holding {
    pub(crate) fn begin(&self, hold: Hold) {
        self.order.send_replace(Some(hold));
    }

    /// Only the order that concerns this epoch: one of a later epoch stays.
    pub(crate) fn end(&self, epoch: Epoch) {
        self.order
            .send_if_modified(|order| order.take_if(|hold| hold.epoch <= epoch).is_some());
    }

    pub(crate) fn holds(&self, route: &Route) -> bool {
        self.order
            .borrow()
            .is_some_and(|hold| hold.lasts(route.epoch))
    }

    /// Returns when no order is in force.
    pub(crate) async fn over(&self, mut route: watch::Receiver<Route>) {
        let mut order = self.order.subscribe();
        loop {
            let known = route.borrow_and_update().epoch;
            let Some(hold) = *order.borrow_and_update() else {
                return;
            };
            if !hold.lasts(known) {
                return;
            }
            // The senders live as long as the proxy, which this is a part of.
            tokio::select! {
                _ = order.changed() => {}
                _ = route.changed() => {}
                () = sleep_until(hold.until) => {}
            }
        }
    }
}
