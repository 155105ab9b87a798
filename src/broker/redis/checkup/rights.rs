//! What the user may do: asked of the server without doing it.

use fred::types::Value;

use super::{Finding, NoAnswer, ask, lost};
use crate::{
    broker::redis::{
        command::{CommandError, CommandLink},
        names::{Names, Partition},
    },
    channel::DEFAULT_NAMESPACE,
    config::{Namespaces, Source},
};

/// Gives the numbers, from 1, of those of its arguments that the user may not run; runs none of them.
const CHECK: &str = "
local refused = {}
for i, line in ipairs(ARGV) do
  local words = {}
  for word in string.gmatch(line, '[^\\n]+') do words[#words + 1] = word end
  local known, allowed = pcall(redis.acl_check_cmd, unpack(words))
  if known and not allowed then refused[#refused + 1] = i end
end
return refused";

/// A command that is needed, as it is sent, and the rule of an ACL for its keys or channels.
struct Needed {
    words: Vec<String>,
    rule: String,
}

impl Needed {
    fn new(words: &str, rule: &str) -> Self {
        Self { words: words.split_whitespace().map(str::to_owned).collect(), rule: rule.to_owned() }
    }
}

/// Whether the library can run as Functions, as a script, or not at all.
pub(super) async fn functions(link: &CommandLink) -> Finding {
    let version = link.call("FCALL", vec!["tidegate_1_version".into(), Value::Integer(0)]).await;
    let refused = match version {
        Ok(_) => return Finding::good("Functions run"),
        // The ACL is asked before the text is read, which is none.
        Err(CommandError::NoFunction) => match ask(link, "FUNCTION", vec!["LOAD".into(), "".into()]).await {
            Err(NoAnswer::Lost(why)) if !why.starts_with("ERR") => return lost("Functions", &why),
            Ok(_) | Err(NoAnswer::Lost(_)) => {
                return Finding::good("Functions are allowed; the first gateway loads them");
            }
            Err(NoAnswer::Refused) => "FUNCTION LOAD",
        },
        Err(error) if error.is_passing() => {
            return lost("Functions", &error.to_string());
        }
        Err(_) => "FCALL",
    };
    match ask(link, "EVAL", vec!["return 1".into(), Value::Integer(0)]).await {
        Ok(_) => Finding::warning(format!(
            "{refused} is refused: the library runs as a script, which is slower: allow the user +function|load +fcall"
        )),
        Err(NoAnswer::Refused) => Finding::failure(format!(
            "{refused} and EVAL are refused, so nothing can be published: allow the user +function|load +fcall, or \
             +eval +evalsha"
        )),
        Err(NoAnswer::Lost(why)) => lost("Functions", &why),
    }
}

/// Whether the user may do what the library does, to its keys and channels, and follow what other programs feed.
pub(super) async fn acl(
    link: &CommandLink,
    names: &Names,
    namespaces: &Namespaces,
    partition: Partition,
    sharded: bool,
) -> Vec<Finding> {
    let mut needed = needed(names, partition, sharded);
    needed.extend(plain(namespaces));
    let mut arguments = vec![CHECK.into(), Value::Integer(0)];
    arguments.extend(needed.iter().map(|needed| Value::from(needed.words.join("\n"))));
    let refused = match ask(link, "EVAL", arguments).await {
        Ok(value) => value.into_array().iter().filter_map(Value::as_usize).collect::<Vec<_>>(),
        Err(NoAnswer::Refused) => {
            return vec![Finding::unchecked(
                "EVAL is refused: whether the ACL allows every command, key and channel could not be checked",
            )];
        }
        Err(NoAnswer::Lost(why)) => return vec![lost("the ACL", &why)],
    };
    if refused.is_empty() {
        return vec![Finding::good("the ACL allows the user every command, key and channel that is needed")];
    }
    // What one rule would allow is told together.
    let mut rules: Vec<(&str, Vec<&str>)> = Vec::new();
    for Needed { words, rule } in refused.iter().filter_map(|number| needed.get(number.checked_sub(1)?)) {
        match rules.iter_mut().find(|(known, _)| known == rule) {
            Some((_, commands)) => commands.push(&words[0]),
            None => rules.push((rule, vec![&words[0]])),
        }
    }
    let sentence = |(rule, commands): (&str, Vec<&str>)| {
        let allow: Vec<_> = commands.iter().map(|command| format!("+{}", command.to_lowercase())).collect();
        format!("the ACL refuses {}: allow the user {rule} {}", commands.join(", "), allow.join(" "))
    };
    rules.into_iter().map(sentence).map(Finding::failure).collect()
}

/// With a key or a channel of ours. No name of ours has a space.
fn needed(names: &Names, partition: Partition, sharded: bool) -> Vec<Needed> {
    let ours = String::from_utf8_lossy(&names.format()).split('{').next().unwrap_or_default().to_owned();
    let key = String::from_utf8_lossy(&names.state(partition)).into_owned();
    let channel = String::from_utf8_lossy(&names.probe(partition, "doctor")).into_owned();
    let keyed = [
        ("GET", ""),
        ("SET", "1"),
        ("DEL", ""),
        ("EXISTS", ""),
        ("PEXPIRE", "1"),
        ("PEXPIREAT", "1"),
        ("XADD", "1-0 m 1"),
        ("XRANGE", "- +"),
        ("XTRIM", "MAXLEN 1"),
        ("HSET", "a 1"),
        ("HGETALL", ""),
        ("HDEL", "a"),
        ("ZADD", "0 a"),
        ("ZREM", "a"),
        ("ZRANGEBYLEX", "- +"),
    ];
    let keyed = keyed.iter().map(|(command, rest)| format!("{command} {key} {rest}"));
    let keyed = keyed.chain(["TIME".to_owned(), "PING".to_owned()]);
    let kind = if sharded { "S" } else { "" };
    let pubsub = [("PUBLISH", "1"), ("SUBSCRIBE", ""), ("UNSUBSCRIBE", "")];
    let pubsub = pubsub.iter().map(|(command, rest)| format!("{kind}{command} {channel} {rest}"));
    let (keys, channels) = (format!("~{ours}*"), format!("&{ours}*"));
    let keyed = keyed.map(|words| Needed::new(&words, &keys));
    keyed.chain(pubsub.map(|words| Needed::new(&words, &channels))).collect()
}

/// With a channel of each namespace that other programs feed. In a Cluster too these are no sharded ones.
fn plain(namespaces: &Namespaces) -> Vec<Needed> {
    let mut needed = Vec::new();
    for namespace in namespaces.iter() {
        let Source::Redis(channel) = &namespace.source else { continue };
        let begin = match namespace.name.as_str() {
            DEFAULT_NAMESPACE => String::new(),
            name => format!("{name}:"),
        };
        let (one, rule) =
            (channel.of(&format!("{begin}doctor")), format!("&{}", channel.of(&format!("{begin}*"))));
        for command in ["SUBSCRIBE", "UNSUBSCRIBE"] {
            needed.push(Needed { words: vec![command.into(), one.clone()], rule: rule.clone() });
        }
    }
    needed
}
