//! Every constant of the model, in one place: nats unless another unit is said.
//!
//! One setting serves every tenant; what differs between tenants is learned, not set. Where they come from:
//! the likelihood-ratio terms from Freeman et al. (NDSS 2016) and the recommended model of this project's design,
//! the weights from sweeps over simulated streams (docs/risk.md), none from a single stream.

use serde::{Deserialize, Serialize};

use super::calibrate::{Calibration, Lines};

/// The constants of the model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Model {
    /// Log prior of stolen credentials. Only differences between the priors matter: lines follow the scores.
    pub prior_theft: f64,
    /// Log prior of a stolen session.
    pub prior_session: f64,
    /// Log prior of abuse by the right person.
    pub prior_abuse: f64,

    /// Observations that everyone's shares weigh against the user's own countries.
    pub country_mass: f64,
    /// The same for autonomous systems within a country.
    pub system_mass: f64,
    /// The same for networks within an autonomous system.
    pub network_mass: f64,
    /// Bounds of the network term.
    pub net_low: f64,
    /// Bounds of the network term.
    pub net_high: f64,
    /// Share of attackers who buy a way out of their victim's own provider, 0 to 1.
    pub net_target: f64,

    /// A known device, only named.
    pub dev_known: f64,
    /// A known device id with software that the user has elsewhere: the header was copied.
    pub dev_family: f64,
    /// A known device id with software that the user never had.
    pub dev_family_new: f64,
    /// A known device whose browser went back to an older version.
    pub dev_version: f64,
    /// A known device proved by a certificate or a bound key.
    pub dev_proved: f64,
    /// A device that is named without the proof it always gave.
    pub dev_unproved: f64,
    /// Share of attackers who name a device of their own, 0 to 1.
    pub dev_p: f64,

    /// Impossible travel to where neither place nor provider is the user's.
    pub travel: f64,
    /// Share of it for a phone within a country of the user's: gateways stand in other cities. 0 to 1.
    pub travel_mobile: f64,
    /// Impossible travel within a provider of the user's.
    pub travel_known_system: f64,
    /// Impossible travel to a place of the user's: an egress, a VPN, a roaming card.
    pub travel_known: f64,
    /// Weight of the hour; the term stays within -0.6 and 1.8.
    pub time_gain: f64,

    /// A session that continues with all it always had.
    pub no_change: f64,
    /// A session that continues with another device.
    pub change_device: f64,
    /// A session that continues with other software.
    pub change_family: f64,
    /// A session that continues on another network.
    pub change_network: f64,
    /// Share of it where networks change by themselves: phones, tunnels, networks of one's own. 0 to 1.
    pub quiet_network: f64,
    /// Two contexts of a session that alternate within two minutes.
    pub change_concurrent: f64,
    /// A failed challenge in this context.
    pub fail: f64,

    /// Weight of behaviour in credential theft.
    pub h1_b: f64,
    /// Weight of the network in session theft.
    pub h2_net: f64,
    /// Weight of travel in session theft.
    pub h2_vel: f64,
    /// Weight of the hour in session theft.
    pub h2_time: f64,
    /// Weight of behaviour in session theft.
    pub h2_b: f64,
    /// Weight of an unusual device in session theft.
    pub h2_dev: f64,
    /// Weight of the hour in abuse.
    pub h3_time: f64,

    /// The most that one action may add to accumulated surprise.
    pub b_high: f64,
    /// The most that one action may take from it (negative).
    pub b_low: f64,
    /// The most that a repetition of the action before may add: paging and polling are no exploration.
    pub b_repeat: f64,
    /// Times that others than the subject and those of its roles must have taken an action for it to raise accumulated surprise
    /// further than a new one may; from then on in proportion.
    pub b_new_times: f64,
    /// How far new actions may raise a service's accumulated surprise, all together: as far as one, which is under the step-up line.
    pub b_new_service: f64,
    /// How far they may raise a person's: as far as two, which is over the step-up line and under the refusal line.
    pub b_new_person: f64,
    /// Share of an attacker's actions that are any of all templates, 0 to 1; the rest are what everybody does.
    pub b_new: f64,
    /// Weight of requests in the last seconds; the term stays within 0 and 3.
    pub rate_gain: f64,
    /// Weight of requests in the last half hour; the term stays within 0 and 3.
    pub volume_gain: f64,
    /// Weight of other users away from home on the same network; the term stays within 0 and 4.
    pub share_gain: f64,

    /// Step-up line until there is enough to calibrate with.
    pub s_step: f64,
    /// Refusal line until then.
    pub s_deny: f64,
    /// Challenges that are worth their trouble, per user and day: what the step-up line is calibrated to.
    pub challenges_per_user_day: f64,
    /// Refusals per user and day: what the refusal line is calibrated to.
    pub refusals_per_user_day: f64,
    /// How far calibration may lower the step-up line: an attacker can push a quantile.
    pub slack_under: f64,
    /// How far calibration may raise either line.
    pub slack_over: f64,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            prior_theft: -4.6,
            prior_session: -4.6,
            prior_abuse: -5.3,
            country_mass: 1.5,
            system_mass: 2.0,
            network_mass: 2.0,
            net_low: -3.0,
            net_high: 5.0,
            net_target: 0.3,
            dev_known: -2.2,
            dev_family: 2.6,
            dev_family_new: 3.6,
            dev_version: 1.5,
            dev_proved: -4.0,
            dev_unproved: 3.0,
            dev_p: 0.6,
            travel: 4.0,
            travel_mobile: 0.35,
            travel_known_system: 1.5,
            travel_known: 0.3,
            time_gain: 0.6,
            no_change: -4.0,
            change_device: 3.4,
            change_family: 2.6,
            change_network: 2.2,
            quiet_network: 0.25,
            change_concurrent: 1.6,
            fail: 4.0,
            h1_b: 0.7,
            h2_net: 0.7,
            h2_vel: 0.6,
            h2_time: 0.5,
            h2_b: 0.5,
            h2_dev: 0.5,
            h3_time: 0.6,
            b_high: 2.6,
            b_low: -2.2,
            b_repeat: 0.1,
            b_new_times: 3.0,
            b_new_service: 2.6,
            b_new_person: 5.2,
            b_new: 0.6,
            rate_gain: 0.9,
            volume_gain: 1.2,
            share_gain: 1.5,
            s_step: -1.0,
            s_deny: 3.0,
            challenges_per_user_day: 0.02,
            refusals_per_user_day: 0.0005,
            slack_under: 1.0,
            slack_over: 1.5,
        }
    }
}

impl Model {
    /// How the lines are found.
    #[must_use]
    pub fn calibration(&self) -> Calibration {
        Calibration {
            initial: Lines { step: self.s_step, deny: self.s_deny },
            challenges: self.challenges_per_user_day,
            refusals: self.refusals_per_user_day,
            slack: (self.slack_under, self.slack_over),
        }
    }
}
