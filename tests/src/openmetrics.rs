//! A strict reader of OpenMetrics 1.0 text, for counters and gauges: all that lbd serves. What the
//! standard forbids is an error here, also what Prometheus would let pass.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};

/// Labels of a sample, by name.
pub type Labels = BTreeMap<String, String>;

/// A family of metrics.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Family {
    /// `counter` or `gauge`.
    pub kind: String,
    /// What it is for.
    pub help: String,
    /// Its values by their labels.
    pub samples: BTreeMap<Labels, f64>,
}

/// Reads an exposition; the families by their names, without `_total`.
///
/// # Errors
/// It is not as the standard says; the error quotes the line.
pub fn parse(text: &str) -> Result<BTreeMap<String, Family>> {
    let body = text.strip_suffix("# EOF\n").context("does not end with `# EOF`")?;
    ensure!(body.is_empty() || body.ends_with('\n'), "`# EOF` is not on a line of its own");
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    for line in body.lines() {
        read(line, &mut current, &mut families).with_context(|| format!("in `{line}`"))?;
    }
    for (name, family) in &families {
        ensure!(!family.kind.is_empty(), "{name} has no TYPE");
    }
    Ok(families)
}

fn read(line: &str, current: &mut String, families: &mut BTreeMap<String, Family>) -> Result<()> {
    if let Some(rest) = line.strip_prefix("# ") {
        let (word, rest) = rest.split_once(' ').context("no metadata")?;
        let (name, value) = rest.split_once(' ').context("no value")?;
        ensure!(is_name(name, true), "no name of a metric");
        if name != current {
            ensure!(!families.contains_key(name), "the family is in two places");
            name.clone_into(current);
        }
        let family = families.entry(name.to_owned()).or_default();
        ensure!(family.samples.is_empty(), "metadata after samples");
        return metadata(family, word, value);
    }
    let end = line.find(['{', ' ']).context("no value")?;
    let (name, rest) = line.split_at(end);
    let family = families.get_mut(current.as_str()).context("a sample without metadata")?;
    let suffix = if family.kind == "counter" { "_total" } else { "" };
    ensure!(name == format!("{current}{suffix}"), "not a name of family {current}");
    let (labels, value) = labels(rest)?;
    let value: f64 = value.parse().context("no number")?;
    ensure!(!value.is_nan(), "not a number");
    ensure!(family.kind != "counter" || value >= 0.0, "a counter below 0");
    ensure!(family.samples.insert(labels, value).is_none(), "a sample twice");
    Ok(())
}

fn metadata(family: &mut Family, word: &str, value: &str) -> Result<()> {
    let place = match word {
        "TYPE" => &mut family.kind,
        "HELP" => &mut family.help,
        _ => bail!("unknown metadata"),
    };
    ensure!(place.is_empty(), "{word} twice");
    ensure!(word != "TYPE" || ["counter", "gauge"].contains(&value), "unknown type");
    value.clone_into(place);
    Ok(())
}

/// Labels in braces, if there are any, and the value after them.
fn labels(text: &str) -> Result<(Labels, &str)> {
    let mut labels = Labels::new();
    let Some(mut rest) = text.strip_prefix('{') else {
        return Ok((labels, text.strip_prefix(' ').context("no blank before the value")?));
    };
    while !rest.starts_with('}') {
        let (name, after) = rest.split_once("=\"").context("no value of a label")?;
        ensure!(is_name(name, false), "no name of a label");
        let (value, after) = quoted(after)?;
        ensure!(labels.insert(name.to_owned(), value).is_none(), "a label twice");
        rest = match after.strip_prefix(',') {
            Some(after) => {
                ensure!(!after.starts_with('}'), "a comma too many");
                after
            }
            None => after,
        };
    }
    Ok((labels, rest.strip_prefix("} ").context("no blank before the value")?))
}

/// A value up to its closing quote, and what follows.
fn quoted(text: &str) -> Result<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => match characters.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, escaped @ ('\\' | '"'))) => value.push(escaped),
                _ => bail!("an unknown escape"),
            },
            _ => value.push(character),
        }
    }
    bail!("an open quote")
}

/// Names of metrics may have colons, those of labels not.
fn is_name(text: &str, colons: bool) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '_' || (colons && c == ':');
    text.chars().all(good) && text.starts_with(|c: char| !c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::parse;

    const GOOD: &str = "# HELP lb_a Some\n# TYPE lb_a counter\nlb_a_total{b=\"c\\\"d\"} 1\n\
                        lb_a_total{b=\"e\",f=\"g\"} 2.5\n# TYPE lb_h gauge\nlb_h -1.0\n# EOF\n";

    #[test]
    fn what_is_good_is_read() {
        let families = parse(GOOD).unwrap();
        assert_eq!(families["lb_a"].samples.values().sum::<f64>(), 3.5);
        let label = families["lb_a"].samples.keys().next().unwrap();
        assert_eq!(label["b"], "c\"d");
        assert_eq!(families["lb_h"].kind, "gauge");
    }

    #[test]
    fn what_is_bad_is_refused() {
        for (from, to) in [
            ("# EOF\n", ""),
            ("# EOF\n", "# EOF\n\n"),
            ("lb_a_total{b=\"e\",f=\"g\"} 2.5", "lb_a{b=\"e\"} 2.5"),
            ("lb_a_total{b=\"e\",f=\"g\"} 2.5", "lb_a_total{b=\"c\\\"d\"} 1"),
            ("2.5", "-2.5"),
            ("2.5", "NaN"),
            (",f=\"g\"", ",b=\"g\""),
            (",f=\"g\"", ","),
            ("-1.0\n", "-1.0\n\n"),
            ("-1.0\n", "-1.0\nlb_a_total{b=\"z\"} 1\n"),
            ("lb_h -1.0", "lb_h_total -1.0"),
            ("gauge", "Gauge"),
            ("# TYPE lb_h gauge\n", ""),
            ("c\\\"d", "c\\d"),
            ("# TYPE lb_h gauge", "# TYPE lb_a gauge"),
        ] {
            assert!(GOOD.contains(from));
            assert!(parse(&GOOD.replacen(from, to, 1)).is_err(), "{from} -> {to}");
        }
    }
}
