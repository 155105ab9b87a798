//! What the user may do: asked of the server without doing it.

use fred::types::Value;

use super::{Finding, NoAnswer, ask, lost, text};
use crate::broker::redis::{
    command::{CommandError, CommandLink},
    names::{Names, Partition},
};

/// Gives those of its arguments that the user may not run; runs none of them.
const CHECK: &str = "
local refused = {}
for _, line in ipairs(ARGV) do
  local words = {}
  for word in string.gmatch(line, '%S+') do words[#words + 1] = word end
  local known, allowed = pcall(redis.acl_check_cmd, unpack(words))
  if known and not allowed then refused[#refused + 1] = words[1] end
end
return refused";

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
        Err(error @ (CommandError::Unavailable | CommandError::Uncertain)) => {
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

/// Whether the user may do what the library does, to its keys and channels.
pub(super) async fn acl(
    link: &CommandLink,
    names: &Names,
    partition: Partition,
    sharded: bool,
) -> Vec<Finding> {
    let mut arguments = vec![CHECK.into(), Value::Integer(0)];
    arguments.extend(needed(names, partition, sharded).into_iter().map(Value::from));
    let refused = match ask(link, "EVAL", arguments).await {
        Ok(value) => value.into_array().iter().filter_map(text).collect::<Vec<_>>(),
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
    let keys = String::from_utf8_lossy(&names.format()).split('{').next().unwrap_or_default().to_owned();
    let about_pubsub = |command: &String| command.ends_with("PUBLISH") || command.ends_with("SUBSCRIBE");
    let (channels, keyed): (Vec<String>, Vec<String>) = refused.into_iter().partition(about_pubsub);
    let mut findings = Vec::new();
    for (refused, rule) in [(keyed, format!("~{keys}*")), (channels, format!("&{keys}*"))] {
        if refused.is_empty() {
            continue;
        }
        let allow: Vec<String> =
            refused.iter().map(|command| format!("+{}", command.to_ascii_lowercase())).collect();
        findings.push(Finding::failure(format!(
            "the ACL refuses {}: allow the user {rule} {}",
            refused.join(", "),
            allow.join(" ")
        )));
    }
    findings
}

/// A line for each command, with a key or a channel of ours. No name of ours has a space.
fn needed(names: &Names, partition: Partition, sharded: bool) -> Vec<String> {
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
    let mut lines: Vec<String> =
        keyed.iter().map(|(command, rest)| format!("{command} {key} {rest}")).collect();
    lines.extend(["TIME".to_owned(), "PING".to_owned()]);
    let kind = if sharded { "S" } else { "" };
    lines.push(format!("{kind}PUBLISH {channel} 1"));
    lines.push(format!("{kind}SUBSCRIBE {channel}"));
    lines.push(format!("{kind}UNSUBSCRIBE {channel}"));
    lines
}
