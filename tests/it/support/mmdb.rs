//! Writes databases of addresses, by the "MaxMind DB File Format Specification", version 2.0
//! (<https://maxmind.github.io/MaxMind-DB/>), so that tests decide which address is where.

use ipnet::IpNet;

/// A database to be written.
pub(crate) struct Mmdb {
    /// What it says that it is: `GeoLite2-City`.
    pub(crate) kind: &'static str,
    /// 4, or 6 for a tree that has IPv4 under `::/96`.
    pub(crate) ip_version: u16,
    /// How many bits a record of the tree has: 24, 28 or 32.
    pub(crate) record_size: u16,
    /// When it says that it was built, in seconds since the Unix epoch.
    pub(crate) built_at: u64,
    /// The entries. Where networks overlap, the smaller one counts.
    pub(crate) networks: Vec<(IpNet, Value)>,
}

/// A value of the data section.
#[derive(Clone)]
pub(crate) enum Value {
    Map(Vec<(&'static str, Value)>),
    Array(Vec<Value>),
    Text(String),
    Double(f64),
    Unsigned16(u16),
    Unsigned32(u32),
    Unsigned64(u64),
}

/// An entry as GeoLite2-City has it: some of what the broker reads, among what it does not.
pub(crate) fn place(country: Option<&str>, coordinates: Option<(f64, f64)>) -> Value {
    let names = Value::Map(vec![("de", Value::Text("Ort".into())), ("en", Value::Text("a place ".repeat(40)))]);
    let mut entry = vec![("city", Value::Map(vec![("geoname_id", Value::Unsigned32(2_950_159)), ("names", names)]))];
    if let Some(code) = country {
        entry.push(("country", Value::Map(vec![("iso_code", Value::Text(code.to_owned()))])));
    }
    if let Some((latitude, longitude)) = coordinates {
        let location = vec![
            ("accuracy_radius", Value::Unsigned16(200)),
            ("latitude", Value::Double(latitude)),
            ("longitude", Value::Double(longitude)),
            ("time_zone", Value::Text("Europe/Berlin".into())),
        ];
        entry.push(("location", Value::Map(location)));
    }
    entry.push(("subdivisions", Value::Array(vec![Value::Map(vec![("iso_code", Value::Text("BE".into()))])])));
    Value::Map(entry)
}

/// What a record of the tree leads to.
#[derive(Clone, Copy)]
enum Record {
    Nothing,
    Node(usize),
    /// The value at this offset of the data section.
    Data(usize),
}

impl Mmdb {
    /// A database of cities with these entries, in the form in which MaxMind gives them out.
    pub(crate) fn cities(networks: &[(&str, Value)]) -> Self {
        let networks = networks.iter().map(|(network, value)| (network.parse().unwrap(), value.clone())).collect();
        Self { kind: "GeoLite2-City", ip_version: 6, record_size: 28, built_at: 1_790_000_000, networks }
    }

    /// The file: the tree, sixteen zeros, the values, and the metadata behind its marker.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut data = Vec::new();
        let mut tree = vec![[Record::Nothing; 2]];
        // From the largest to the smallest: these are put into what is there already.
        let mut networks: Vec<_> = self.networks.iter().collect();
        networks.sort_by_key(|(network, _)| self.bits(network).1);
        for (network, value) in networks {
            let offset = data.len();
            value.write(&mut data);
            insert(&mut tree, self.bits(network), offset);
        }
        let mut file = Vec::new();
        for node in &tree {
            self.write_node(node.map(|record| number(record, tree.len())), &mut file);
        }
        file.extend([0; 16]);
        file.extend(data);
        file.extend(b"\xab\xcd\xefMaxMind.com");
        self.metadata(tree.len()).write(&mut file);
        file
    }

    /// The network as bits from the top, and how many of them count.
    fn bits(&self, network: &IpNet) -> (u128, u8) {
        match (network, self.ip_version) {
            (IpNet::V4(network), 4) => (u128::from(u32::from(network.network())) << 96, network.prefix_len()),
            (IpNet::V4(network), _) => (u128::from(u32::from(network.network())), network.prefix_len() + 96),
            (IpNet::V6(network), 6) => (u128::from(network.network()), network.prefix_len()),
            (IpNet::V6(network), _) => panic!("{network} in a database without IPv6"),
        }
    }

    fn write_node(&self, [left, right]: [u32; 2], file: &mut Vec<u8>) {
        let (left, right) = (left.to_be_bytes(), right.to_be_bytes());
        match self.record_size {
            24 => file.extend([&left[1..], &right[1..]].concat()),
            // The byte between has the highest four bits of both.
            28 => file.extend([&left[1..], &[(left[0] << 4) | right[0]], &right[1..]].concat()),
            32 => file.extend([left, right].concat()),
            other => panic!("there are no records of {other} bits"),
        }
    }

    fn metadata(&self, nodes: usize) -> Value {
        Value::Map(vec![
            ("binary_format_major_version", Value::Unsigned16(2)),
            ("binary_format_minor_version", Value::Unsigned16(0)),
            ("build_epoch", Value::Unsigned64(self.built_at)),
            ("database_type", Value::Text(self.kind.to_owned())),
            ("description", Value::Map(vec![("en", Value::Text("made for a test".to_owned()))])),
            ("ip_version", Value::Unsigned16(self.ip_version)),
            ("languages", Value::Array(vec![Value::Text("de".to_owned()), Value::Text("en".to_owned())])),
            ("node_count", Value::Unsigned32(u32::try_from(nodes).unwrap())),
            ("record_size", Value::Unsigned16(self.record_size)),
        ])
    }
}

fn insert(tree: &mut Vec<[Record; 2]>, (bits, length): (u128, u8), offset: usize) {
    assert!(length > 0, "the whole tree cannot be one entry");
    let mut node = 0;
    for depth in 0..length {
        let side = usize::from((bits >> (127 - depth)) & 1 == 1);
        if depth + 1 == length {
            tree[node][side] = Record::Data(offset);
            return;
        }
        node = match tree[node][side] {
            Record::Node(next) => next,
            // An entry of a larger network holds on both sides of the smaller one's way.
            above => {
                tree.push([above; 2]);
                let next = tree.len() - 1;
                tree[node][side] = Record::Node(next);
                next
            }
        };
    }
}

fn number(record: Record, nodes: usize) -> u32 {
    let number = match record {
        Record::Nothing => nodes,
        Record::Node(node) => node,
        Record::Data(offset) => nodes + 16 + offset,
    };
    u32::try_from(number).unwrap()
}

impl Value {
    fn write(&self, to: &mut Vec<u8>) {
        match self {
            Self::Text(text) => {
                write_control(2, text.len(), to);
                to.extend(text.as_bytes());
            }
            Self::Double(number) => {
                write_control(3, 8, to);
                to.extend(number.to_be_bytes());
            }
            Self::Unsigned16(number) => write_unsigned(5, &number.to_be_bytes(), to),
            Self::Unsigned32(number) => write_unsigned(6, &number.to_be_bytes(), to),
            Self::Map(entries) => {
                write_control(7, entries.len(), to);
                for (key, value) in entries {
                    Self::Text((*key).to_owned()).write(to);
                    value.write(to);
                }
            }
            Self::Unsigned64(number) => write_unsigned(9, &number.to_be_bytes(), to),
            Self::Array(values) => {
                write_control(11, values.len(), to);
                for value in values {
                    value.write(to);
                }
            }
        }
    }
}

/// Numbers are without their leading zeros; zero itself has no bytes.
fn write_unsigned(kind: u8, bytes: &[u8], to: &mut Vec<u8>) {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    write_control(kind, bytes.len() - zeros, to);
    to.extend(&bytes[zeros..]);
}

/// The type and the size: three bits and five, for both of which there can be more bytes.
fn write_control(kind: u8, size: usize, to: &mut Vec<u8>) {
    let (short, more) = match size {
        0..29 => (size, vec![]),
        29..285 => (29, (size - 29).to_be_bytes()[7..].to_vec()),
        285..65_821 => (30, (size - 285).to_be_bytes()[6..].to_vec()),
        _ => (31, (size - 65_821).to_be_bytes()[5..].to_vec()),
    };
    let short = u8::try_from(short).unwrap();
    match kind {
        1..8 => to.push((kind << 5) | short),
        _ => to.extend([short, kind - 7]),
    }
    to.extend(more);
}
