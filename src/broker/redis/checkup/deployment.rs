//! All servers of a deployment: its Sentinels, what of a Cluster is served, and each primary.

use futures_util::future::join_all;

use super::{Finding, look};
use crate::{
    broker::redis::{
        command::CommandLink,
        endpoint::{Endpoint, Role},
        largest_payload,
        names::{Names, Partition},
        resp::{Connection, error_text},
        server::Server,
        topology::{self, NONE, Topology},
    },
    config::{Config, Deployment},
};

/// Looks at every server that `config` leads to. Each sentence begins with the server's address.
pub async fn examine(config: &Config) -> Vec<Finding> {
    let endpoint = match Endpoint::new(&config.broker, largest_payload(config)) {
        Ok(endpoint) => endpoint,
        Err(sentence) => return vec![Finding::failure(sentence)],
    };
    let names = Names::new(&config.broker.prefix, config.broker.partitions, endpoint.database());
    let slots: Vec<u16> = (0..names.partitions()).map(|p| names.slot(Partition(p))).collect();
    let mut findings = Vec::new();
    if let Deployment::Sentinel { sentinels, service } = endpoint.deployment() {
        let sentinels: Vec<Server> = sentinels.iter().map(Server::from).collect();
        findings.extend(watchers(&endpoint, &sentinels, service).await);
    }
    let topology = match topology::discover(&endpoint, &slots, &[]).await {
        Ok(topology) => topology,
        Err(error) => {
            findings.push(Finding::failure(error.to_string()));
            return findings;
        }
    };
    if topology.sharded {
        findings.push(coverage(&topology));
    }
    let (endpoint, names, topology) = (&endpoint, &names, &topology);
    let look = |server| async move {
        match CommandLink::connect(endpoint, server, endpoint.command_timeout()).await {
            Ok(link) => {
                let partition = topology.partitions_of(server).next();
                let findings = look(&link, endpoint, names, &config.namespaces, partition).await;
                findings.into_iter().map(|finding| at(server, finding)).collect()
            }
            Err(error) => vec![Finding::failure(error.to_string())],
        }
    };
    findings.extend(join_all(topology.primaries.iter().map(look)).await.into_iter().flatten());
    findings
}

/// The same, of this server.
fn at(server: &Server, finding: Finding) -> Finding {
    Finding { sentence: format!("{server}: {}", finding.sentence), ..finding }
}

fn coverage(topology: &Topology) -> Finding {
    let (all, primaries) = (topology.owner.len(), topology.primaries.len());
    match topology.owner.iter().filter(|owner| **owner == NONE).count() {
        0 => Finding::good(format!("the Cluster serves all {all} partitions, by {primaries} primaries")),
        none => Finding::failure(format!(
            "the Cluster has no primary for {none} of {all} partitions: their channels are away until every slot is \
             served (redis-cli --cluster check)"
        )),
    }
}

/// Whether the Sentinels are there, agree, and could order a failover.
async fn watchers(endpoint: &Endpoint, sentinels: &[Server], service: &str) -> Vec<Finding> {
    let limit = endpoint.command_timeout();
    let asked = sentinels.iter().map(|sentinel| topology::opinion(endpoint, sentinel, service, limit));
    let mut findings = Vec::new();
    let mut primaries: Vec<Server> = Vec::new();
    let mut known = 0;
    for (sentinel, opinion) in sentinels.iter().zip(join_all(asked).await) {
        match opinion {
            Ok((_, primary)) => {
                known += 1;
                let sentence =
                    format!("{sentinel}: this Sentinel names {primary} the primary of {service:?}");
                findings.push(Finding::good(sentence));
                if !primaries.contains(&primary) {
                    primaries.push(primary);
                }
            }
            Err(error) => findings.push(Finding::warning(format!("{error}: this Sentinel has no say"))),
        }
    }
    if primaries.len() > 1 {
        let named: Vec<String> = primaries.iter().map(Server::to_string).collect();
        findings.push(Finding::warning(format!(
            "the Sentinels do not agree who the primary is ({}): a failover may be under way, else look at their network",
            named.join(", ")
        )));
    }
    if known <= sentinels.len() / 2 {
        findings.push(Finding::failure(format!(
            "{known} of the {} Sentinels in broker.url answer, which is no majority",
            sentinels.len()
        )));
    }
    if sentinels.len() < 3 {
        findings.push(Finding::warning(format!(
            "broker.url names {} of the Sentinels: name all, three or more, so that one may be away",
            sentinels.len()
        )));
    }
    findings.extend(
        join_all(sentinels.iter().map(|sentinel| quorum(endpoint, sentinel, service)))
            .await
            .into_iter()
            .flatten(),
    );
    findings
}

/// Whether a Sentinel sees enough others for a failover.
async fn quorum(endpoint: &Endpoint, sentinel: &Server, service: &str) -> Option<Finding> {
    let limit = endpoint.command_timeout();
    let (mut connection, _) = Connection::open(endpoint, sentinel, Role::Sentinel, limit).await.ok()?;
    let question: [&[u8]; 3] = [b"SENTINEL", b"CKQUORUM", service.as_bytes()];
    let answer = tokio::time::timeout(limit, connection.ask(&question)).await.ok()?.ok()?;
    Some(at(
        sentinel,
        match error_text(&answer) {
            None => Finding::good("it sees enough Sentinels for a failover"),
            Some(error) if error.starts_with("NOQUORUM") => Finding::warning(format!(
                "a failover is not possible: {error}: bring the other Sentinels back"
            )),
            Some(error) if error.starts_with("ERR No such master") => return None,
            Some(error) => {
                Finding::unchecked(format!("whether a failover is possible could not be checked: {error}"))
            }
        },
    ))
}
