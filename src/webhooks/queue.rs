//! The partitions that are to be looked into for one endpoint, each at most once: short, however much happens.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::model::id::Partition;

/// First come, first served. What is queued already is not queued again.
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    pushed: Notify,
}

struct Waiting {
    order: VecDeque<Partition>,
    is_queued: [bool; 256],
}

impl Queue {
    pub(super) fn new() -> Self {
        let waiting = Waiting { order: VecDeque::with_capacity(256), is_queued: [false; 256] };
        Self { waiting: Mutex::new(waiting), pushed: Notify::new() }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, partition: Partition) {
        self.waiting().push(partition);
        self.pushed.notify_one();
    }

    /// Queues every partition, in an order that `chance` decides, so that instances do not follow each other.
    pub(super) fn push_all(&self, [first, step]: [u8; 2]) {
        let mut waiting = self.waiting();
        // An odd step passes every partition before it comes back to the first.
        let partitions = (0..=u8::MAX).map(|position| first.wrapping_add(position.wrapping_mul(step | 1)));
        partitions.for_each(|partition| waiting.push(Partition(partition)));
        self.pushed.notify_one();
    }

    pub(super) fn clear(&self) {
        let mut waiting = self.waiting();
        waiting.order.clear();
        waiting.is_queued = [false; 256];
    }

    /// The next partition, as soon as there is one. Dropped, it has taken nothing.
    pub(super) async fn next(&self) -> Partition {
        loop {
            if let Some(partition) = self.waiting().pop() {
                return partition;
            }
            self.pushed.notified().await;
        }
    }
}

impl Waiting {
    fn push(&mut self, partition: Partition) {
        let is_queued = &mut self.is_queued[usize::from(partition.0)];
        if !std::mem::replace(is_queued, true) {
            self.order.push_back(partition);
        }
    }

    fn pop(&mut self) -> Option<Partition> {
        let partition = self.order.pop_front()?;
        self.is_queued[usize::from(partition.0)] = false;
        Some(partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_partition_is_queued_once_and_again_after_it_was_taken() {
        let queue = Queue::new();
        for partition in [7, 7, 3, 7] {
            queue.push(Partition(partition));
        }
        assert_eq!(queue.next().await, Partition(7));
        queue.push(Partition(7));
        assert_eq!(queue.next().await, Partition(3));
        assert_eq!(queue.next().await, Partition(7));
        assert!(queue.waiting().order.is_empty());
    }

    #[test]
    fn a_round_goes_through_every_partition_whatever_chance_says() {
        for chance in [[0, 0], [255, 255], [17, 128], [200, 3]] {
            let queue = Queue::new();
            queue.push(Partition(9));
            queue.push_all(chance);
            let waiting = queue.waiting();
            assert_eq!(waiting.order.len(), 256, "{chance:?}");
            assert_eq!(waiting.order[0], Partition(9), "{chance:?}");
        }
    }

    #[tokio::test]
    async fn who_waits_is_woken() {
        let queue = std::sync::Arc::new(Queue::new());
        let waiter = tokio::spawn({
            let queue = std::sync::Arc::clone(&queue);
            async move { queue.next().await }
        });
        tokio::task::yield_now().await;
        queue.push(Partition(1));
        assert_eq!(waiter.await.unwrap(), Partition(1));
    }
}
