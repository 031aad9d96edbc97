use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use crate::http::RecentEvent;

/// Events shown on the dashboard; older ones are in the log.
const RECENT_MAX: usize = 50;

/// The last changes that this node saw.
#[derive(Clone)]
pub(crate) struct Recent {
    events: Arc<Mutex<VecDeque<RecentEvent>>>,
    /// Milliseconds since 1970.
    wall_clock: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl Recent {
    pub(crate) fn new(wall_clock: Arc<dyn Fn() -> u64 + Send + Sync>) -> Self {
        Self {
            events: Arc::default(),
            wall_clock,
        }
    }

    pub(crate) fn note(&self, what: String) {
        let at_ms = (self.wall_clock)();
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        if events.len() == RECENT_MAX {
            events.pop_front();
        }
        events.push_back(RecentEvent { at_ms, what });
    }

    pub(crate) fn list(&self) -> Vec<RecentEvent> {
        self.events
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .cloned()
            .collect()
    }
}
