//! Who waits for a module, and whose turn it is: round-robin over readers, and within a reader
//! first come, first served.

use std::collections::{HashMap, VecDeque};

/// A queue that serves readers in turn. One that has many reads waiting pushes another back by one
/// turn at most.
pub(super) struct FairQueue<T> {
    /// What each reader waits with; no reader without.
    lines: HashMap<String, VecDeque<T>>,
    /// The readers in `lines`, whose turn comes next first.
    turns: VecDeque<String>,
    len: usize,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self { lines: HashMap::new(), turns: VecDeque::new(), len: 0 }
    }
}

impl<T> FairQueue<T> {
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// How many this reader waits with.
    pub(super) fn len_of(&self, reader: &str) -> usize {
        self.lines.get(reader).map_or(0, VecDeque::len)
    }

    /// To the end of the reader's line; a reader without a line gets the last turn.
    pub(super) fn push(&mut self, reader: &str, waiter: T) {
        self.len += 1;
        if let Some(line) = self.lines.get_mut(reader) {
            line.push_back(waiter);
        } else {
            self.lines.insert(reader.to_owned(), VecDeque::from([waiter]));
            self.turns.push_back(reader.to_owned());
        }
    }

    /// To the very front: it had its turn, and got nothing for it.
    pub(super) fn push_front(&mut self, reader: &str, waiter: T) {
        self.len += 1;
        self.lines.entry(reader.to_owned()).or_default().push_front(waiter);
        self.turns.retain(|turn| turn != reader);
        self.turns.push_front(reader.to_owned());
    }

    /// Whose turn it is. The reader's next turn, if it has more waiting, is the last.
    pub(super) fn pop(&mut self) -> Option<T> {
        let reader = self.turns.pop_front()?;
        let line = self.lines.get_mut(&reader)?;
        let waiter = line.pop_front();
        if line.is_empty() {
            self.lines.remove(&reader);
        } else {
            self.turns.push_back(reader);
        }
        self.len -= usize::from(waiter.is_some());
        waiter
    }

    /// Drops those that wait no longer.
    pub(super) fn retain(&mut self, waits: impl Fn(&T) -> bool) {
        for line in self.lines.values_mut() {
            line.retain(&waits);
        }
        self.lines.retain(|_, line| !line.is_empty());
        self.turns.retain(|reader| self.lines.contains_key(reader));
        self.len = self.lines.values().map(VecDeque::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(queue: &mut FairQueue<&'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn readers_take_turns_and_each_keeps_its_own_order() {
        let mut queue = FairQueue::default();
        for waiter in ["a1", "a2", "a3", "b1", "c1", "b2"] {
            queue.push(&waiter[..1], waiter);
        }
        assert_eq!((queue.len(), queue.len_of("a"), queue.len_of("d")), (6, 3, 0));
        assert_eq!(order(&mut queue), ["a1", "b1", "c1", "a2", "b2", "a3"]);
        assert_eq!((queue.len(), queue.lines.len(), queue.turns.len()), (0, 0, 0));
    }

    #[test]
    fn one_that_was_just_served_stands_behind_the_others() {
        let mut queue = FairQueue::default();
        queue.push("a", "a1");
        queue.push("a", "a2");
        assert_eq!(queue.pop(), Some("a1"));
        queue.push("b", "b1");
        queue.push("a", "a3");
        assert_eq!(order(&mut queue), ["a2", "b1", "a3"], "pushed back by one turn");
    }

    #[test]
    fn one_that_got_nothing_for_its_turn_is_next_again() {
        let mut queue = FairQueue::default();
        for waiter in ["a1", "b1", "b2"] {
            queue.push(&waiter[..1], waiter);
        }
        assert_eq!(queue.pop(), Some("a1"));
        queue.push_front("a", "a1");
        assert_eq!(order(&mut queue), ["a1", "b1", "b2"]);
        queue.push("a", "a2");
        queue.push("b", "b3");
        queue.push_front("b", "b0");
        assert_eq!(order(&mut queue), ["b0", "a2", "b3"]);
    }

    #[test]
    fn who_gave_up_takes_no_place_and_no_turn() {
        let mut queue = FairQueue::default();
        for waiter in ["a1", "b1", "a2", "c1"] {
            queue.push(&waiter[..1], waiter);
        }
        queue.retain(|waiter| !matches!(*waiter, "a1" | "b1"));
        assert_eq!((queue.len(), queue.len_of("b")), (2, 0));
        assert_eq!(order(&mut queue), ["a2", "c1"]);
    }
}
