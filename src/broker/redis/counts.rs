//! How many listen to a channel, over all nodes: each node leaves its figures in Redis for a while and renews
//! them, so that nobody is asked when somebody wants to know.

use std::{collections::HashMap, time::Duration};

use futures_util::future::join_all;

use super::{Inner, calls::Way, names::Partition};
use crate::{broker::BrokerError, channel::Channel, metrics::RedisCommand};

/// How long a figure counts that is not renewed: a node that died is forgotten.
pub(super) const LEASE: Duration = Duration::from_secs(40);

/// Channels told of in one call.
const AT_ONCE: usize = 256;

impl Inner {
    /// Leaves this node's figures: those that changed, or all of them to renew the lease; 0 takes one back.
    ///
    /// # Errors
    /// Redis is away; the figures are told again next time.
    pub(super) async fn report(&self, counts: &[(Channel, usize)]) -> Result<(), BrokerError> {
        let mut groups: HashMap<Partition, Vec<(Channel, usize)>> = HashMap::new();
        for (channel, count) in counts {
            groups.entry(self.names.partition(channel)).or_default().push((channel.clone(), *count));
        }
        let told = groups.into_iter().map(|(partition, counts)| async move {
            for some in counts.chunks(AT_ONCE) {
                let ask = |way: Way| async move {
                    self.functions.count(&way, partition, &self.node, LEASE, some).await
                };
                self.on(RedisCommand::Other, partition, ask).await?;
            }
            Ok(())
        });
        // All at once: one after the other would outlast the lease over a slow link, and end with the first
        // server that is away.
        join_all(told).await.into_iter().collect()
    }

    /// How many listen at other nodes, and the age of the oldest figure in ms.
    ///
    /// # Errors
    /// Redis is away.
    pub(super) async fn counted(&self, channel: &Channel) -> Result<(usize, u64), BrokerError> {
        let ask = |way: Way| async move { self.functions.counted(&way, channel, &self.node, LEASE).await };
        self.on(RedisCommand::Other, self.names.partition(channel), ask).await
    }
}
