//! The nodes of a cluster, and which of them has which keys.
//!
//! Each node has a link, and with it its own patience: one that hangs holds nobody else up. The map of slots is read
//! again whenever a node is away, hangs, is not the master any more or names another; all nodes are asked for it, since
//! the one that is asked may be the one that was cut off, and of those in touch with most masters the answer of the highest
//! epoch is taken (Redis cluster specification, "Cluster current epoch"). While a node hangs, whoever wants it keeps the map fresh, so that the
//! replica that is promoted is found within the pause between two readings.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use redis::{Arg, Cmd, ConnectionInfo, Value};
use tokio::task::JoinSet;

use super::super::error::{Cause, Error, OpenError};
use super::super::metrics::Metrics;
use super::Request;
use super::link::{Failure, Lead, Link, complete, info_at};
use super::search::{PATIENCE, Search};

/// How many slots a cluster has (Redis cluster specification, "Key distribution model").
const SLOTS: u16 = 16_384;

/// The cluster.
pub(super) struct Cluster {
    /// Who is asked for the map whatever it says.
    seeds: Vec<Arc<Link>>,
    template: ConnectionInfo,
    map: ArcSwap<Map>,
    search: Search,
    metrics: Metrics,
}

/// How many nodes are remembered; a cluster has at most a thousand (Redis cluster specification, "Redis Cluster goals").
const NODES: usize = 1_024;

/// Who has which slots.
#[derive(Clone, Default)]
struct Map {
    /// Every node: masters, replicas, and those without slots that others sent us to since the slots last moved.
    nodes: BTreeMap<String, Arc<Link>>,
    ranges: Vec<(Range, Arc<Link>)>,
}

/// Some slots, the last one included, and who has them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Range {
    first: u16,
    last: u16,
    master: String,
    replicas: Vec<String>,
}

impl Map {
    fn master(&self, slot: u16) -> Option<Arc<Link>> {
        let (_, master) = self.ranges.iter().find(|(range, _)| (range.first..=range.last).contains(&slot))?;
        Some(Arc::clone(master))
    }

    /// Each master once.
    fn masters(&self) -> BTreeMap<String, Arc<Link>> {
        self.ranges.iter().map(|(range, master)| (range.master.clone(), Arc::clone(master))).collect()
    }
}

impl Cluster {
    pub(super) fn new(seeds: Vec<ConnectionInfo>, metrics: &Metrics) -> Result<Arc<Self>, OpenError> {
        let template = seeds.first().ok_or(OpenError::Url)?.clone();
        Ok(Arc::new(Self {
            seeds: seeds.into_iter().map(|info| Link::new(info, metrics)).collect::<Result<_, _>>()?,
            template,
            map: ArcSwap::default(),
            search: Search::default(),
            metrics: metrics.clone(),
        }))
    }

    /// The answer of the master that has the keys.
    pub(super) async fn ask(self: &Arc<Self>, request: &Request<'_>) -> Result<Value, Error> {
        let started = Instant::now();
        let slot = slot_of_request(request).ok_or_else(|| Error::Unavailable(Cause::new(Cause::NO_KEY)))?;
        let master = match self.map.load().master(slot) {
            Some(master) => master,
            None => self.find_master(slot, started).await?,
        };
        let Failure { error, lead } = match master.ask(request).await {
            Ok(answer) => return Ok(answer),
            Err(failure) => failure,
        };
        match lead {
            Lead::Nowhere => Err(error),
            // Patience is used up: whoever comes next finds the new master.
            Lead::Elsewhere if matches!(error, Error::TimedOut(_)) => {
                self.search_behind();
                Err(error)
            }
            Lead::Elsewhere => {
                let now = self.find_master(slot, started).await?;
                if Arc::ptr_eq(&now, &master) {
                    return Err(error);
                }
                now.ask(request).await.map_err(Failure::into_error)
            }
            Lead::Moved(address) => {
                self.search_behind();
                self.node(&address)?.ask(request).await.map_err(Failure::into_error)
            }
            Lead::Ask(address) => self.node(&address)?.ask_asking(request).await.map_err(Failure::into_error),
        }
    }

    /// Whether a master serves. One that has not the key says so, and serves.
    pub(super) async fn probe(self: &Arc<Self>, write: &Cmd) -> Result<(), Error> {
        if self.map.load().ranges.is_empty() {
            self.search.since(Instant::now(), self.look()).await.map_err(Error::Unavailable)?;
        }
        let mut asked = JoinSet::new();
        for master in self.masters() {
            let write = write.clone();
            asked.spawn(async move { master.ask(&Request::Command(&write)).await });
        }
        let mut worst = Error::Unavailable(Cause::new(Cause::NO_MASTER));
        while let Some(answer) = asked.join_next().await {
            match answer {
                Ok(Ok(_) | Err(Failure { lead: Lead::Moved(_) | Lead::Ask(_), .. })) => return Ok(()),
                Ok(Err(Failure { error, .. })) => worst = error,
                Err(_) => {}
            }
        }
        self.search_behind();
        Err(worst)
    }

    /// The masters that are known.
    pub(super) fn masters(&self) -> Vec<Arc<Link>> {
        self.map.load().masters().into_values().collect()
    }

    async fn find_master(&self, slot: u16, since: Instant) -> Result<Arc<Link>, Error> {
        self.search.since(since, self.look()).await.map_err(Error::Unavailable)?;
        self.map.load().master(slot).ok_or_else(|| Error::Unavailable(Cause::new(Cause::NO_MASTER)))
    }

    fn search_behind(self: &Arc<Self>) {
        if !self.search.is_fresh() {
            let cluster = Arc::clone(self);
            tokio::spawn(async move { cluster.search.since(Instant::now(), cluster.look()).await });
        }
    }

    /// The node at `address`, of which the map may not know yet.
    fn node(&self, address: &str) -> Result<Arc<Link>, Error> {
        let known = || self.map.load().nodes.get(address).map(Arc::clone);
        if let Some(node) = known() {
            return Ok(node);
        }
        let link = self.link(address).ok_or_else(|| Error::Unavailable(Cause::new(Cause::NO_MASTER)))?;
        // Remembered at once: while its first slots are on their way to it, every request for them is sent there, and
        // each would connect anew.
        self.map.rcu(|map| {
            let mut map = Map::clone(map);
            if map.nodes.len() < NODES {
                map.nodes.entry(address.to_owned()).or_insert_with(|| Arc::clone(&link));
            }
            map
        });
        Ok(known().unwrap_or(link))
    }

    fn link(&self, address: &str) -> Option<Arc<Link>> {
        Link::new(info_at(&self.template, address)?, &self.metrics).ok()
    }

    /// Reads the map of slots again.
    async fn look(&self) -> Result<(), Cause> {
        let before = self.map.load_full();
        let mut asked = JoinSet::new();
        for node in self.seeds.iter().chain(before.nodes.values()) {
            let node = Arc::clone(node);
            asked.spawn(async move { node.within(PATIENCE, read_ranges(&node)).await });
        }
        let mut best: Result<(Rank, Vec<Range>), Cause> = Err(Cause::new(Cause::NO_MASTER));
        while let Some(answer) = asked.join_next().await {
            match (answer, &best) {
                (Ok(Some(Ok(read))), Ok((highest, _))) if read.0 > *highest => best = Ok(read),
                (Ok(Some(Ok(read))), Err(_)) => best = Ok(read),
                (Ok(Some(Err(cause))), Err(_)) => best = Err(cause),
                _ => {}
            }
        }
        let (_, ranges) = best?;
        if before.ranges.iter().map(|(range, _)| range).eq(&ranges) {
            return Ok(());
        }
        let mut nodes = BTreeMap::new();
        for address in ranges.iter().flat_map(|range| range.replicas.iter().chain([&range.master])) {
            let known = || before.nodes.get(address).map(Arc::clone);
            if let Some(link) = known().or_else(|| self.link(address)) {
                nodes.insert(address.clone(), link);
            }
        }
        let with_link = |range: Range| Some((range.clone(), Arc::clone(nodes.get(&range.master)?)));
        let ranges = ranges.into_iter().filter_map(with_link).collect();
        if !before.ranges.is_empty() {
            tracing::info!("slots of the store have moved to other servers");
            self.metrics.reconnects.inc();
        }
        self.map.store(Arc::new(Map { nodes, ranges }));
        Ok(())
    }
}

/// How much the word of a node counts: first whether it is in touch with most masters, then how new what it knows is. A
/// replica that was cut off raises its epoch with each vote that nobody hears of.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    is_in_touch: bool,
    epoch: u64,
}

impl Rank {
    /// Reads the answer of `CLUSTER INFO`.
    fn parse(info: &str) -> Option<Self> {
        let value = |name: &str| info.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()));
        let epoch = value("cluster_current_epoch")?.parse().ok()?;
        Some(Self { is_in_touch: value("cluster_state") == Some("ok"), epoch })
    }
}

/// What a node knows of the cluster, and how much that counts.
async fn read_ranges(node: &Arc<Link>) -> Result<(Rank, Vec<Range>), Cause> {
    let ask = async |what: &str| {
        let mut command = redis::cmd("CLUSTER");
        node.ask(&Request::Command(command.arg(what))).await.map_err(Failure::cause)
    };
    let unexpected = || Cause::new(Cause::UNEXPECTED_ANSWER);
    let info: String = redis::from_redis_value(ask("INFO").await?).map_err(|_| unexpected())?;
    let rank = Rank::parse(&info).ok_or_else(unexpected)?;
    let ranges = parse_slots(&ask("SLOTS").await?, |address| complete(address, node.address()));
    let mut ranges = ranges.ok_or_else(unexpected)?;
    ranges.sort_unstable_by_key(|range| range.first);
    Ok((rank, ranges))
}

/// Reads the answer of `CLUSTER SLOTS`; `complete` adds the host that a node left out.
fn parse_slots(answer: &Value, complete: impl Fn(&str) -> String) -> Option<Vec<Range>> {
    let slot = |value: &Value| match value {
        Value::Int(slot) => u16::try_from(*slot).ok().filter(|slot| *slot < SLOTS),
        _ => None,
    };
    let address = |node: &Value| {
        let Value::Array(node) = node else { return None };
        let host = match node.first()? {
            Value::BulkString(host) => std::str::from_utf8(host).ok()?,
            // A node without a name of its own.
            Value::Nil => "",
            _ => return None,
        };
        // What a node says of one whose name it was not told yet.
        let host = if host == "?" { "" } else { host };
        let Value::Int(port) = node.get(1)? else { return None };
        Some(complete(&format!("{host}:{port}")))
    };
    let range = |value: &Value| {
        let Value::Array(range) = value else { return None };
        let [first, last, master, replicas @ ..] = &range[..] else { return None };
        // Each node has an order of its own.
        let mut replicas: Vec<_> = replicas.iter().filter_map(address).collect();
        replicas.sort_unstable();
        Some(Range { first: slot(first)?, last: slot(last)?, master: address(master)?, replicas })
    };
    let Value::Array(ranges) = answer else { return None };
    ranges.iter().map(range).collect()
}

/// The slot of a request's first key, which is that of all its keys.
fn slot_of_request(request: &Request<'_>) -> Option<u16> {
    match request {
        Request::Command(command) => Some(slot(argument(command, 1)?)),
        Request::Script(script) => {
            let mut pipeline = redis::pipe();
            pipeline.invoke_script(script);
            // EVALSHA, digest, number of keys, first key.
            pipeline.cmd_iter().next().and_then(|command| Some(slot(argument(command, 3)?)))
        }
    }
}

fn argument(command: &Cmd, position: usize) -> Option<&[u8]> {
    match command.args_iter().nth(position)? {
        Arg::Simple(argument) => Some(argument),
        _ => None,
    }
}

/// The slot of a key: of what stands between its first braces, if anything does (Redis cluster specification, "Hash
/// tags").
fn slot(key: &[u8]) -> u16 {
    let tag = || {
        let open = key.iter().position(|byte| *byte == b'{')?;
        let (tag, _) = key[open + 1..].split_at(key[open + 1..].iter().position(|byte| *byte == b'}')?);
        (!tag.is_empty()).then_some(tag)
    };
    crc16(tag().unwrap_or(key)) % SLOTS
}

/// CRC-16/XMODEM, as in appendix A of the specification.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(
            crc ^ (u16::from(*byte) << 8),
            |crc, _| {
                if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
            },
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_in_the_slot_of_its_tag() {
        // The first is the check value of appendix A; the others are what `CLUSTER KEYSLOT` of a server says.
        assert_eq!(crc16(b"123456789"), 0x31C3);
        for (name, key, expected) in [
            ("no tag", b"foo".as_slice(), 12_182),
            ("a tag", b"{foo}.following", 12_182),
            ("an empty tag", b"{}", 15_257),
            ("an open brace", b"{foo", 13_308),
            ("one of ours", b"upload-broker:{p3f}u\x00\xff", slot(b"p3f")),
        ] {
            assert_eq!(slot(key), expected, "{name}");
        }
    }

    #[test]
    fn the_first_key_of_a_request_is_found() {
        let script = redis::Script::new("return 1");
        let mut call = script.prepare_invoke();
        call.arg("{bar}").key(b"a:{foo}b\xff").key("a:{foo}c");
        assert_eq!(slot_of_request(&Request::Script(&call)), Some(12_182));
        let mut get = redis::cmd("MGET");
        get.arg("{foo}").arg("{foo}b");
        assert_eq!(slot_of_request(&Request::Command(&get)), Some(12_182));
        assert_eq!(slot_of_request(&Request::Command(&redis::cmd("PING"))), None);
    }

    #[tokio::test]
    async fn a_node_that_requests_are_sent_to_is_connected_to_once() {
        let seed = redis::IntoConnectionInfo::into_connection_info("redis://a:1?protocol=resp3").unwrap();
        let cluster = Cluster::new(vec![seed], &Metrics::new()).unwrap();
        let first = cluster.node("b:7").unwrap();
        assert!(Arc::ptr_eq(&first, &cluster.node("b:7").unwrap()));
        for number in 0..2 * NODES {
            cluster.node(&format!("c{number}:7")).unwrap();
        }
        assert_eq!(cluster.map.load().nodes.len(), NODES, "what is remembered is bounded");
        assert!(cluster.node("b").is_err(), "no port");
    }

    #[test]
    fn the_word_of_a_node_that_was_cut_off_counts_less() {
        let rank = |state: &str, epoch: &str| {
            Rank::parse(&format!("cluster_state:{state}\r\ncluster_slots_ok:1\r\ncluster_current_epoch:{epoch}\r\n"))
        };
        assert!(rank("ok", "8") > rank("ok", "7"));
        assert!(rank("ok", "7") > rank("fail", "9"));
        assert!(rank("fail", "9") > rank("fail", "7"));
        assert_eq!(rank("ok", "x"), None);
        assert_eq!(Rank::parse(""), None);
    }

    #[test]
    fn a_map_of_slots_is_read_or_refused() {
        let read = |wire: &str| {
            let answer = redis::parse_redis_value(wire.as_bytes()).unwrap();
            parse_slots(&answer, |node| if node.starts_with(':') { format!("seed{node}") } else { node.to_owned() })
        };
        let node = "*4\r\n$1\r\na\r\n:7000\r\n$1\r\ni\r\n*0\r\n";
        let (nameless, unknown) = ("*3\r\n$-1\r\n:7001\r\n$1\r\nj\r\n", "*3\r\n$1\r\n?\r\n:7002\r\n$1\r\nk\r\n");
        let range = Range {
            first: 0,
            last: 16_383,
            master: "a:7000".to_owned(),
            replicas: vec!["seed:7001".to_owned(), "seed:7002".to_owned()],
        };
        for replicas in [format!("{nameless}{unknown}"), format!("{unknown}{nameless}")] {
            let whole = format!("*1\r\n*5\r\n:0\r\n:16383\r\n{node}{replicas}");
            assert_eq!(read(&whole), Some(vec![range.clone()]));
        }
        assert_eq!(read("*0\r\n"), Some(Vec::new()));
        for (name, wire) in [
            ("no list", "+OK\r\n".to_owned()),
            ("no master", "*1\r\n*2\r\n:0\r\n:1\r\n".to_owned()),
            ("too high a slot", format!("*1\r\n*3\r\n:0\r\n:16384\r\n{node}")),
            ("a slot below zero", format!("*1\r\n*3\r\n:-1\r\n:1\r\n{node}")),
        ] {
            assert_eq!(read(&wire), None, "{name}");
        }
    }
}
