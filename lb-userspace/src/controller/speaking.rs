//! The speaker beside the controller's loop: started when BGP is configured, told what is decided,
//! stopped in the order that loses no packet.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::Controller;
use super::run::{RunError, World, now, told};
use crate::bgp::announce::Phase;
use crate::bgp::speaker::{Options, Speaker, SpeakerError, SpeakerReport};
use crate::desired::bgp::Bgp;
use crate::host::systemd;

/// What peers' operators read when lbd ends.
const STOPPING: &str = "lbd is stopping";
/// What they read when BGP is taken out of the configuration.
const NOT_CONFIGURED: &str = "BGP is not configured any more";
/// What they read when the configuration begins a dry run.
const DRY_RUN: &str = "BGP is a dry run now";
/// Packets have stopped when none has come for so long.
const QUIET: Duration = Duration::from_secs(1);
/// Peers that do not read have this long to hear of withdrawals before they count as told.
const TOLD_MAX: Duration = Duration::from_secs(5);
/// The service manager is asked for so much time more than leaving takes.
const MARGIN: Duration = Duration::from_secs(10);

/// The speaker, while there is one.
pub(super) struct Speaking {
    running: Option<(Speaker, watch::Receiver<Arc<SpeakerReport>>)>,
    options: Options,
}

impl Speaking {
    /// Nobody speaks before the first decision.
    pub(super) const fn new(options: Options) -> Self {
        Self { running: None, options }
    }

    /// The next report; never, while nobody speaks.
    pub(super) async fn report(&mut self) -> Arc<SpeakerReport> {
        if let Some((_, reports)) = &mut self.running
            && reports.changed().await.is_ok()
        {
            return reports.borrow_and_update().clone();
        }
        std::future::pending().await
    }

    /// Tells the speaker what the controller wants now.
    pub(super) async fn follow(&mut self, controller: &Controller) -> Result<(), SpeakerError> {
        let orders = controller.speaker_orders().filter(|orders| !orders.bgp.dry_run);
        match (orders, &self.running) {
            (Some(orders), None) => {
                let running = Speaker::spawn(self.options)?;
                running.0.set(Arc::new(orders));
                self.running = Some(running);
                // A speaker that is started later begins anew.
                self.options.restarted = false;
            }
            (Some(orders), Some((speaker, _))) => speaker.set(Arc::new(orders)),
            (None, _) => {
                let is_dry = controller.announcement().is_some_and(|(bgp, _)| bgp.dry_run);
                self.stop(if is_dry { DRY_RUN } else { NOT_CONFIGURED }, true).await;
            }
        }
        Ok(())
    }

    async fn stop(&mut self, text: &str, notify: bool) {
        if let Some((speaker, _)) = self.running.take() {
            speaker.stop(text, notify).await;
        }
    }
}

impl World {
    /// Leaves: lower preference, withdrawn, forwarding until packets stop, sessions closed; or all
    /// stays for graceful restart. Another signal cuts it short.
    pub(super) async fn leave(&mut self, controller: &mut Controller) -> Result<(), RunError> {
        let Some(bgp) = controller.announcement().map(|(bgp, _)| bgp.clone()) else {
            return Ok(());
        };
        controller.shut_down_bgp(now());
        if controller.bgp_phase() == Phase::Kept {
            self.speaking.stop("", false).await;
            return Ok(());
        }
        told(systemd::extend_timeout(leaving_takes(&bgp)));
        if !bgp.dry_run {
            self.pass_on(controller).await?;
            self.until_nobody_comes(controller, &bgp).await?;
        }
        self.speaking.stop(STOPPING, true).await;
        Ok(())
    }

    /// Turns until all is withdrawn, and then until no packet comes or the time is over.
    async fn until_nobody_comes(
        &mut self,
        controller: &mut Controller,
        bgp: &Bgp,
    ) -> Result<(), RunError> {
        let mut packets = (0, now().boot);
        loop {
            if let Some(signal) = self.turn(controller).await? {
                tracing::warn!(signal, "a second signal: leaving at once");
                return Ok(());
            }
            let boot = now().boot;
            let Phase::Withdrawn(since) = controller.bgp_phase() else { continue };
            let waited = boot.saturating_sub(since);
            if !controller.is_told() && waited < TOLD_MAX {
                continue;
            }
            let count = controller.packets_for_vips();
            if count != packets.0 {
                packets = (count, boot);
            }
            let is_quiet = boot.saturating_sub(packets.1) >= QUIET;
            if is_quiet || waited >= bgp.linger {
                tracing::info!(waited = ?waited, quiet = is_quiet, "routes are withdrawn");
                return Ok(());
            }
        }
    }
}

/// How long leaving takes at most.
fn leaving_takes(bgp: &Bgp) -> Duration {
    bgp.lower.time + TOLD_MAX.max(bgp.linger) + MARGIN
}
