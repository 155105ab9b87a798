//! Reads that are shared: whoever asks the same while a read runs gets the next one, which begins after he
//! asked. So 5,000 who come at once cost two reads, and nobody gets an answer older than his question.

use std::{collections::HashMap, hash::Hash, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::metrics::Metrics;

/// Reads under way, by what they ask.
pub struct Coalesce<K, V> {
    reads: Arc<Mutex<HashMap<K, Next<V>>>>,
    metrics: Arc<Metrics>,
}

/// Who waits for the read after the one that runs, if anybody does.
type Next<V> = Option<watch::Sender<Option<V>>>;

impl<K, V> Coalesce<K, V>
where
    K: Hash + Eq + Clone + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Counts what is shared.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { reads: Arc::default(), metrics }
    }

    /// What `read` gives, begun after this call. `None` where it panicked.
    pub async fn run<F>(&self, key: K, read: impl Fn() -> F + Send + 'static) -> Option<V>
    where
        F: Future<Output = V> + Send,
    {
        let mut answer = self.join(key, read);
        let answered = answer.wait_for(Option::is_some).await;
        answered.ok().and_then(|value| value.clone())
    }

    fn join<F>(&self, key: K, read: impl Fn() -> F + Send + 'static) -> watch::Receiver<Option<V>>
    where
        F: Future<Output = V> + Send,
    {
        let mut reads = self.reads.lock();
        if let Some(next) = reads.get_mut(&key) {
            // The first of those who wait costs a read of its own.
            if next.is_some() {
                self.metrics.coalesced();
            }
            return next.get_or_insert_with(|| watch::channel(None).0).subscribe();
        }
        reads.insert(key.clone(), None);
        let (first, answer) = watch::channel(None);
        let reads = Arc::clone(&self.reads);
        // A task of its own: who began it may leave, and the others stay.
        tokio::spawn(async move {
            let mut done = Done { reads, key: Some(key) };
            let mut asked = first;
            loop {
                asked.send_replace(Some(read().await));
                match done.next() {
                    Some(next) => asked = next,
                    None => return,
                }
            }
        });
        answer
    }
}

/// Takes the key out, however the reads end.
struct Done<K: Hash + Eq, V> {
    reads: Arc<Mutex<HashMap<K, Next<V>>>>,
    key: Option<K>,
}

impl<K: Hash + Eq, V> Done<K, V> {
    /// Who waits for one more read; the last one is over where nobody does.
    fn next(&mut self) -> Next<V> {
        let mut reads = self.reads.lock();
        let key = self.key.as_ref()?;
        let next = reads.get_mut(key).and_then(Option::take);
        if next.is_none() {
            reads.remove(key);
            self.key = None;
        }
        next
    }
}

impl<K: Hash + Eq, V> Drop for Done<K, V> {
    fn drop(&mut self) {
        if let Some(key) = &self.key {
            self.reads.lock().remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use tokio::sync::Semaphore;

    use super::*;

    fn coalesce<K, V>() -> Coalesce<K, V>
    where
        K: Hash + Eq + Clone + Send + 'static,
        V: Clone + Send + Sync + 'static,
    {
        Coalesce::new(Arc::new(Metrics::new().unwrap()))
    }

    #[tokio::test]
    async fn who_asks_while_a_read_runs_shares_the_next_one() {
        let reads = Arc::new(coalesce::<u8, usize>());
        let (count, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let ask = || {
            let (reads, count, gate) = (reads.clone(), count.clone(), gate.clone());
            tokio::spawn(async move {
                let read = move || {
                    let (count, gate) = (count.clone(), gate.clone());
                    async move {
                        let number = count.fetch_add(1, SeqCst) + 1;
                        gate.acquire().await.unwrap().forget();
                        number
                    }
                };
                reads.run(7, read).await.unwrap()
            })
        };
        let first = ask();
        while count.load(SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let others: Vec<_> = (0..100).map(|_| ask()).collect();
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        gate.add_permits(2);
        assert_eq!(first.await.unwrap(), 1);
        for other in others {
            assert_eq!(other.await.unwrap(), 2);
        }
        assert!(reads.reads.lock().is_empty());
        let metrics = reads.metrics.render().unwrap();
        assert!(
            metrics.contains("\ntidegate_catchup_coalesced_total 99\n"),
            "100 shared one read: {metrics}"
        );
        gate.add_permits(1);
        assert_eq!(ask().await.unwrap(), 3);
    }

    #[tokio::test]
    async fn who_leaves_takes_nobody_with_him_and_a_panic_frees_the_key() {
        let reads = coalesce::<u8, u8>();
        let never = tokio::time::timeout(
            std::time::Duration::from_millis(1),
            reads.run(1, || async {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                1
            }),
        );
        assert!(never.await.is_err());
        assert_eq!(
            reads.run(1, || async { 9 }).await,
            Some(1),
            "the read that runs answers its joiners again"
        );
        assert_eq!(reads.run(2, || async { if true { panic!("as meant") } else { 1 } }).await, None);
        assert_eq!(reads.run(2, || async { 3 }).await, Some(3));
    }
}
