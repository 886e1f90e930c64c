//! What a client knows of the log behind its address: the newest place it has seen in each lane, and
//! whether that is another log now.
//!
//! A log is replaced, or goes back, when its storage is restored, or a gateway that keeps it in memory
//! starts again. Places in the log before mean nothing then. That is told once, to the call that finds
//! out; the client and its clones go on with the log there is.

use parking_lot::Mutex;
use stategate_model::Token;

/// What became of the log that a client had seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// It is another one.
    Replaced,
    /// It ends before a place that was seen in it.
    WentBack,
}

/// What is known, shared by every call.
#[derive(Debug, Default)]
pub(crate) struct Known(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The newest place seen in each lane.
    place: Option<Token>,
    /// Which of the logs seen one after the other this is. An answer to a call that was begun in an
    /// earlier era may be of the log before, and come late: it does not say which log there is.
    era: u64,
    /// What was found out by a write, which has no error to say it by: the next read says it.
    untold: Option<Change>,
    /// A read that was to be as new as `place` was not answered in time: the log may end before it.
    is_doubted: bool,
}

/// What is known when a call begins.
#[derive(Debug, Clone, Default)]
pub(crate) struct View {
    /// What the answer to a read is to reflect.
    pub(crate) place: Option<Token>,
    era: u64,
}

/// What an answer says of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A place that was there before, of a read or of a write that an earlier try had made.
    Seen,
    /// The place of an event that is new: after every one that was seen before.
    Appended,
    /// Where the log ends.
    Heads,
}

impl State {
    /// Another log from here on, or the same log from another place on.
    fn begin(&mut self, place: Option<Token>) {
        self.place = place;
        self.era += 1;
        self.is_doubted = false;
    }

    fn view(&self) -> View {
        View {
            place: self.place.clone(),
            era: self.era,
        }
    }
}

impl Known {
    /// The newest place seen.
    pub(crate) fn place(&self) -> Option<Token> {
        self.0.lock().place.clone()
    }

    /// For a call that can say nothing of the log.
    pub(crate) fn view(&self) -> View {
        self.0.lock().view()
    }

    /// For a read: what it goes by, or what it has to say.
    pub(crate) fn ask(&self) -> Result<View, Change> {
        let mut state = self.0.lock();
        match state.untold.take() {
            Some(change) => Err(change),
            None => Ok(state.view()),
        }
    }

    /// Whether to find out where the log ends, before anything waits for a place in it.
    pub(crate) fn is_doubted(&self) -> bool {
        self.0.lock().is_doubted
    }

    /// A place that the caller gives. One of another log takes the place of what is known: whether
    /// there is such a log is for the gateway to say.
    pub(crate) fn observe(&self, token: &Token) {
        let mut state = self.0.lock();
        match &mut state.place {
            Some(place) if place.log_id == token.log_id => place.merge(token),
            _ => state.begin(Some(token.clone())),
        }
    }

    /// A call was answered with a place.
    pub(crate) fn answered(&self, view: &View, token: &Token, answer: Answer) {
        let mut state = self.0.lock();
        let is_late = state.era != view.era;
        match &mut state.place {
            Some(place) if place.log_id == token.log_id => {
                if !is_late && answer.contradicts(view, token) {
                    state.begin(Some(token.clone()));
                    state.untold = Some(Change::WentBack);
                } else {
                    place.merge(token);
                    if answer == Answer::Heads {
                        state.is_doubted = false;
                    }
                }
            }
            _ if is_late => {}
            Some(_) => {
                state.begin(Some(token.clone()));
                state.untold = Some(Change::Replaced);
            }
            None => state.begin(Some(token.clone())),
        }
    }

    /// A read was refused for the place that it asked for. Whether that is news: of several calls that
    /// find out, the first one says it.
    pub(crate) fn refused(&self, view: &View) -> bool {
        let mut state = self.0.lock();
        let is_news = view.place.is_some() && state.era == view.era;
        if is_news {
            state.begin(None);
            state.untold = None;
        }
        is_news
    }

    /// The owner of a stream was told that the log of this token is gone, or went back.
    pub(crate) fn told_of(&self, token: &Token) {
        let mut state = self.0.lock();
        let is_known = |place: &Token| place.log_id == token.log_id;
        if state.place.as_ref().is_some_and(is_known) {
            state.begin(None);
        }
    }

    /// Somebody is told that this token's log took the place of the one before.
    pub(crate) fn said(&self, token: &Token) {
        let mut state = self.0.lock();
        let is_known = |place: &Token| place.log_id == token.log_id;
        if state.place.as_ref().is_some_and(is_known) {
            state.untold = None;
        }
    }

    /// A read that was to be as new as its view was not answered in time.
    pub(crate) fn doubt(&self, view: &View) {
        let mut state = self.0.lock();
        if view.place.is_some() && state.era == view.era {
            state.is_doubted = true;
        }
    }

    /// Nobody says where the log ends.
    pub(crate) fn trust(&self) {
        self.0.lock().is_doubted = false;
    }
}

impl Answer {
    /// Whether the log cannot have had what was known of it, if this is true now.
    fn contradicts(self, view: &View, token: &Token) -> bool {
        let Some(known) = &view.place else {
            return false;
        };
        token.iter().any(|(lane, now)| {
            known.get(lane).is_some_and(|before| match self {
                Self::Seen => false,
                Self::Appended => now <= before,
                Self::Heads => now < before,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use stategate_model::{Lane, LogId, Position};

    use super::*;

    fn logs() -> (impl Fn(u64) -> Token, impl Fn(u64) -> Token) {
        let of = |log: LogId| move |at| Token::of_lane(log, Lane(0), Position::new(at));
        (of(LogId::random()), of(LogId::random()))
    }

    fn seen(known: &Known, token: &Token) {
        known.answered(&known.view(), token, Answer::Seen);
    }

    #[test]
    fn of_many_that_find_out_one_says_it() {
        let (old, new) = logs();
        let known = Known::default();
        seen(&known, &old(9));
        let views = [(); 3].map(|()| known.ask().unwrap());
        assert_eq!(
            views.each_ref().map(|view| known.refused(view)),
            [true, false, false]
        );
        assert_eq!(known.place(), None);
        seen(&known, &new(1));
        assert_eq!(known.ask().unwrap().place, Some(new(1)));
        // Replaced once more, and said once more.
        assert!(known.refused(&known.ask().unwrap()));
    }

    #[test]
    fn a_late_answer_does_not_bring_the_old_log_back() {
        let (old, new) = logs();
        let known = Known::default();
        seen(&known, &old(9));
        let slow = known.view();
        assert!(known.refused(&known.ask().unwrap()));
        known.answered(&slow, &old(10), Answer::Appended);
        assert_eq!(known.place(), None);
        seen(&known, &new(2));
        known.answered(&slow, &old(11), Answer::Seen);
        assert_eq!(known.place(), Some(new(2)));
        // What is late and of this log counts.
        known.answered(&slow, &new(3), Answer::Appended);
        assert_eq!(known.place(), Some(new(3)));
        assert!(known.ask().is_ok());
    }

    #[test]
    fn the_first_answers_of_all_may_come_in_any_order() {
        let (old, new) = logs();
        let known = Known::default();
        let (one, two) = (known.view(), known.view());
        known.answered(&two, &new(1), Answer::Appended);
        known.answered(&one, &old(7), Answer::Appended);
        assert_eq!(known.ask().unwrap().place, Some(new(1)));
    }

    #[test]
    fn what_a_write_finds_out_the_next_read_says() {
        let (old, new) = logs();
        let known = Known::default();
        seen(&known, &old(9));
        known.answered(&known.view(), &new(1), Answer::Appended);
        assert_eq!(known.ask().unwrap_err(), Change::Replaced);
        assert_eq!(known.ask().unwrap().place, Some(new(1)));
        // The same log, restored as it was once.
        known.answered(&known.view(), &new(5), Answer::Appended);
        known.answered(&known.view(), &new(3), Answer::Seen);
        assert_eq!(known.ask().unwrap().place, Some(new(5)));
        known.answered(&known.view(), &new(4), Answer::Appended);
        assert_eq!(known.ask().unwrap_err(), Change::WentBack);
        assert_eq!(known.ask().unwrap().place, Some(new(4)));
    }

    #[test]
    fn writes_that_are_answered_in_another_order_are_no_way_back() {
        let (log, _) = logs();
        let known = Known::default();
        seen(&known, &log(1));
        let (one, two) = (known.view(), known.view());
        known.answered(&two, &log(3), Answer::Appended);
        known.answered(&one, &log(2), Answer::Appended);
        assert_eq!(known.ask().unwrap().place, Some(log(3)));
    }

    #[test]
    fn doubt_ends_with_where_the_log_ends() {
        let (log, _) = logs();
        let known = Known::default();
        seen(&known, &log(9));
        known.doubt(&known.view());
        assert!(known.is_doubted());
        known.answered(&known.view(), &log(9), Answer::Heads);
        assert!(!known.is_doubted());
        known.doubt(&known.view());
        known.answered(&known.view(), &log(8), Answer::Heads);
        assert!(!known.is_doubted());
        assert_eq!(known.ask().unwrap_err(), Change::WentBack);
    }

    #[test]
    fn what_the_caller_gives_is_not_replaced_in_silence() {
        let (mine, other) = logs();
        let known = Known::default();
        seen(&known, &mine(4));
        known.observe(&other(2));
        assert_eq!(known.place(), Some(other(2)));
        known.answered(&known.view(), &mine(5), Answer::Appended);
        assert_eq!(known.ask().unwrap_err(), Change::Replaced);
        // A stream that is told of another log leaves this one alone.
        known.told_of(&other(2));
        assert_eq!(known.place(), Some(mine(5)));
        known.told_of(&mine(1));
        assert_eq!(known.place(), None);
    }
}
