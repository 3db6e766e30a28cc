//! What the operator changes: configurations, and overrides of single backends.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Controller, Moment};
use crate::api::requests::{BackendAction, BackendChange, ConfigText};
use crate::api::types::{Outcome, PlanLine};
use crate::api::{API_VERSION, Failure};
use crate::config::diagnostic::{Report, Source, View, closest};
use crate::config::{self, Loaded};
use crate::desired::{BackendState, Desired};
use crate::host::clock;
use crate::plan::{self, Line};
use crate::state::{Numbers, Override};
use crate::tracking::Moved;

impl From<Line> for PlanLine {
    fn from(Line { sign, subject, text }: Line) -> Self {
        Self { sign, subject, text }
    }
}

/// A configuration that may be taken, and what it changes.
struct Planned {
    loaded: Loaded,
    numbers: Numbers,
    outcome: Outcome,
}

impl Controller {
    /// What this configuration would change.
    pub(super) fn plan(&self, text: &ConfigText) -> Result<Outcome, Failure> {
        self.planned(read(text)?, text.files.first().map(|file| file.path.as_path()))
            .map(|planned| planned.outcome)
    }

    /// Takes a configuration, or refuses it whole.
    pub(super) fn apply_text(
        &mut self,
        text: &ConfigText,
        now: Moment,
    ) -> Result<Outcome, Failure> {
        if self.is_leaving() {
            return Err(Failure::refused(
                "lbd is stopping: apply the configuration to the next one",
            ));
        }
        let path = text.files.first().map(|file| file.path.as_path());
        let planned = self.planned(read(text)?, path)?;
        let outcome = self.take(planned, now);
        match self.outlet.failing.clone() {
            Some(reason) => Err(Failure::internal(format!(
                "the configuration is taken, and the data plane refuses a part: {reason}"
            ))),
            None => Ok(outcome),
        }
    }

    /// The configuration was read again by lbd itself.
    pub(super) fn on_reload(&mut self, loaded: Loaded, now: Moment) {
        log_findings(&loaded.warnings);
        match self.planned(loaded, None) {
            Ok(planned) => {
                self.take(planned, now);
            }
            Err(refused) => {
                let reason = refused.message;
                tracing::error!(reason, "the configuration is refused; the old one stays");
            }
        }
    }

    fn planned(&self, loaded: Loaded, path: Option<&Path>) -> Result<Planned, Failure> {
        let (old, new) = (&self.desired, &loaded.desired);
        let mut refusals = plan::refusals(old, new);
        if loaded.secret != self.secret {
            refusals.push(
                "the cluster secret cannot change while the data plane lives: every flow would \
                 move"
                    .to_owned(),
            );
        }
        if plan::wants_tunnel(new) && !self.options.tunnel {
            refusals.push(
                "health checks cannot go through the tunnel here (see the log of lbd's start): set \
                 `via = \"direct\"`"
                    .to_owned(),
            );
        }
        if !refusals.is_empty() {
            return Err(Failure::invalid(refusals.join("\n")));
        }
        let mut numbers = self.numbers.clone();
        numbers.assign(new, self.room).map_err(|error| Failure::refused(error.to_string()))?;
        let mut changes = plan::changes(old, new, &self.moves(new, &numbers));
        changes.extend(self.password_changes(&loaded));
        let mut notes = self.override_notes(new);
        let is_other = path.filter(|path| *path != self.options.config && !changes.is_empty());
        if let Some(path) = is_other {
            let start = self.options.config.display();
            notes.push(format!("after a restart lbd takes {start} again, not {}", path.display()));
        }
        let outcome = Outcome {
            version: API_VERSION,
            applied: false,
            changes: changes.into_iter().map(PlanLine::from).collect(),
            notes,
            warnings: loaded.warnings.render(false),
            undo: None,
        };
        Ok(Planned { loaded, numbers, outcome })
    }

    /// What each pool would move, were its new backends up.
    fn moves(&self, new: &Desired, numbers: &Numbers) -> BTreeMap<String, Moved> {
        let mut moves = BTreeMap::new();
        for (name, pool) in &new.pools {
            let tracker = self.pools.get(name).and_then(|pool| pool.tracker.as_ref());
            let is_same = self.desired.pools.get(name) == Some(pool);
            if let Some(tracker) = tracker.filter(|_| !is_same) {
                let members = plan::members_once_up(pool, numbers, &self.overrides);
                moves.insert(name.clone(), tracker.moved_slots(&members));
            }
        }
        moves
    }

    /// Overrides outlive the file they were made under, unless their backend goes.
    fn override_notes(&self, new: &Desired) -> Vec<String> {
        let notes = self.overrides.iter().map(|(name, by_operator)| {
            let words = by_operator.words();
            match find(new, name) {
                true => format!("override of {name} stays: {words}"),
                false => format!("override of {name} ends with its backend: {words}"),
            }
        });
        notes.collect()
    }

    /// Brings a planned configuration into force.
    fn take(&mut self, planned: Planned, now: Moment) -> Outcome {
        let Planned { loaded, numbers, mut outcome } = planned;
        outcome.applied = true;
        // The same bytes again change nothing, not even the generation.
        let is_same = loaded.desired == self.desired && loaded.passwords == self.passwords;
        // Without BGP in the file the announcer may keep what is announced, and its sessions.
        if loaded.desired.bgp.is_some() {
            self.passwords = loaded.passwords;
        }
        self.take_roas(loaded.vrps);
        if is_same {
            tracing::info!("the configuration is the same");
            self.settle(now);
            return outcome;
        }
        for id in numbers.backends.keys().filter(|id| !self.numbers.backends.contains_key(id)) {
            // Another backend behind a known name has yet to prove itself.
            if let Some(record) = numbers.backends.get(id) {
                let key = crate::health::BackendKey::new(&record.pool, &record.name);
                self.verdicts.remove(&key);
            }
        }
        self.numbers = numbers;
        self.desired = loaded.desired;
        self.overrides.retain(|name, _| find(&self.desired, name));
        self.generation += 1;
        self.applied = clock::rfc3339(now.wall);
        for PlanLine { sign, subject, text } in &outcome.changes {
            tracing::info!(%sign, subject, change = text, "configuration");
        }
        tracing::info!(generation = self.generation, "configuration is in force");
        self.adopt(now);
        self.settle(now);
        outcome
    }

    /// Drains, undrains or weighs one backend, whatever the file says.
    pub(super) fn change_backend(
        &mut self,
        change: &BackendChange,
        now: Moment,
    ) -> Result<Outcome, Failure> {
        let BackendChange { pool: pool_name, backend: name, action } = change;
        let full = plan::full_name(pool_name, name);
        let known: Vec<&str> = self.desired.pools.keys().map(String::as_str).collect();
        let pool = self.desired.pools.get(pool_name);
        let pool = pool.ok_or_else(|| unknown("pool", pool_name, &known))?.clone();
        let known: Vec<&str> = pool.backends.keys().map(String::as_str).collect();
        let what = format!("backend of pool {pool_name} called");
        let backend = pool.backends.get(name).ok_or_else(|| unknown(&what, name, &known))?;
        let before = plan::effective(backend, self.overrides.get(&full));
        let mut by_operator = self.overrides.get(&full).copied().unwrap_or_default();
        match action {
            BackendAction::Drain => by_operator.state = Some(BackendState::Drain),
            BackendAction::Undrain => by_operator.state = Some(BackendState::Up),
            BackendAction::Weight(weight) => by_operator.weight = Some(*weight),
        }
        // What the file says anyway needs no override.
        by_operator.state = by_operator.state.filter(|state| *state != backend.state);
        by_operator.weight = by_operator.weight.filter(|weight| *weight != backend.weight);
        let after = plan::effective(backend, Some(&by_operator));
        let mut overrides = self.overrides.clone();
        set_override(&mut overrides, &full, by_operator);
        let members = plan::members(&pool, &self.numbers, &overrides);
        if before != after && members.iter().all(|member| member.weight == 0) {
            return Err(Failure::refused(format!(
                "`{name}` is the last backend of pool `{pool_name}` that takes new flows; undrain \
                 or weigh another one first"
            )));
        }
        let mut outcome = changed(&full, before, after);
        if before != after {
            let tracker = self.pools.get(pool_name).and_then(|pool| pool.tracker.as_ref());
            if let Some(moved) = tracker.map(|tracker| tracker.moved_slots(&members)) {
                let text = plan::moved_text(&moved, pool.maglev_size);
                outcome.changes.push(PlanLine::from(Line::new(
                    '~',
                    format!("pool {pool_name}"),
                    text,
                )));
            }
            tracing::info!(pool = pool_name, backend = name, ?action, "override");
        }
        if overrides != self.overrides {
            self.overrides = overrides;
            self.outlet.journal_dirty = true;
            self.reconcile(pool_name, now);
            self.settle(now);
        }
        Ok(outcome)
    }
}

/// A line for each finding: drawings of a file do not survive a log.
pub(super) fn log_findings(report: &Report) {
    for View { id, severity, title, file, line, column, help } in report.views() {
        let place = [line, column].into_iter().flatten().map(|number| format!(":{number}"));
        let file = file.map_or_else(String::new, |file| file.display().to_string());
        let at = format!("{file}{}", place.collect::<String>());
        let help = help.join("; ");
        match severity {
            "error" => tracing::error!(id, at, help, "{title}"),
            _ => tracing::warn!(id, at, help, "{title}"),
        }
    }
}

fn set_override(overrides: &mut BTreeMap<String, Override>, name: &str, by_operator: Override) {
    if by_operator.is_empty() {
        overrides.remove(name);
    } else {
        overrides.insert(name.to_owned(), by_operator);
    }
}

/// What a backend's override did, and how to take it back.
fn changed(full: &str, before: (BackendState, u16), after: (BackendState, u16)) -> Outcome {
    let mut outcome = Outcome::applied();
    let subject = format!("backend {full}");
    if before.0 != after.0 {
        let (text, undo) = match after.0 {
            BackendState::Drain => ("drains: no new flows, its flows stay", "undrain"),
            BackendState::Up => ("takes new flows again", "drain"),
        };
        outcome.changes.push(Line::new('~', subject.clone(), text).into());
        outcome.undo = Some(format!("lbctl backend {undo} {full}"));
    }
    if before.1 != after.1 {
        let text = format!("weight {} -> {}", before.1, after.1);
        outcome.changes.push(Line::new('~', subject, text).into());
        outcome.undo = Some(format!("lbctl backend weight {full} {}", before.1));
    }
    outcome
}

/// Whether `POOL/BACKEND` is configured.
fn find(desired: &Desired, full: &str) -> bool {
    let pool = full.split_once('/');
    pool.is_some_and(|(pool, backend)| {
        desired.pools.get(pool).is_some_and(|pool| pool.backends.contains_key(backend))
    })
}

/// "There is no such thing", with what was probably meant.
pub(super) fn unknown(what: &str, name: &str, known: &[&str]) -> Failure {
    /// More names than this are not listed.
    const LISTED_MAX: usize = 10;
    let hint = match closest(name, known.iter().copied()) {
        Some(word) => format!("did you mean `{word}`?"),
        None if known.is_empty() => "there is none at all".to_owned(),
        None => {
            let more = if known.len() > LISTED_MAX { ", ..." } else { "" };
            let listed: Vec<&str> = known.iter().take(LISTED_MAX).copied().collect();
            format!("known: {}{more}", listed.join(", "))
        }
    };
    Failure::unknown(format!("there is no {what} `{name}`; {hint}"))
}

/// Checks the files of an order; all findings are the answer if it is refused.
fn read(text: &ConfigText) -> Result<Loaded, Failure> {
    let sources = text.files.iter();
    let sources =
        sources.map(|file| Source { path: file.path.clone(), text: file.text.clone() }).collect();
    config::check(sources, &config::Readers::DISK)
        .map_err(|report| Failure::invalid(report.render(false).trim_end()))
}
