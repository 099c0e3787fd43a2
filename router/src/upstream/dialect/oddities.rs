//! What was unexpected in a server's answer.

use super::lenient::{Lenient, Member};
use crate::prompt::Text;

/// What a decoder has passed over in an answer because it did not recognise it.
#[derive(Debug, Default)]
pub struct Oddities {
    /// The names of members that had another type than expected. They are names of the decoder, not of the server.
    pub members: Vec<&'static str>,
    /// The number of events in which nothing was recognised.
    pub events: u64,
    /// A finish reason that no server is known to send.
    pub finish: Option<Text>,
}

impl Oddities {
    /// Whether nothing was unexpected.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.members.is_empty() && self.events == 0 && self.finish.is_none()
    }

    /// Notes what is unexpected in an event. `None`: nothing in it is recognised.
    pub(super) fn of_event<'de, T: Lenient<'de>>(&mut self, event: Member<T>) -> Option<T> {
        let event = event.given().filter(T::is_recognised);
        match &event {
            Some(event) => event.odd(&mut self.members),
            None => self.events += 1,
        }
        event
    }

    pub(super) fn unknown_finish(&mut self, word: &str) {
        self.finish = Some(word.to_owned().into());
    }
}
