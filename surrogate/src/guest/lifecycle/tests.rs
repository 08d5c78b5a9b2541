use core::net::{IpAddr, Ipv4Addr};

use super::*;
use crate::engine::{Mode, WakeReason};
use crate::hypervisor::{PauseReason, Power};
use crate::policy::budget::{HostBudget, Limit, WakeBudget};

const SYN: WakeReason = WakeReason::TcpSyn { port: 80, from: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 101)) };
const MS: Duration = Duration::from_millis(1);

/// A lifecycle with an executor that the test steers: orders are done at once, except those it stops at.
struct Bench {
    cycle: Lifecycle,
    host: HostBudget,
    now: Instant,
    /// The guest's true power, which an inspection finds.
    power: Power,
    done: Vec<Action>,
    outstanding: Option<Order>,
    fail: Vec<Action>,
    hold_at: Option<Action>,
    reports: Vec<Report>,
}

impl Bench {
    fn awake() -> Self {
        Self::with(CyclePolicy {
            wake: WakePolicy::Managed,
            budget: WakeBudget { burst: 2, per_minute: 6 },
            wake_timeout: Duration::from_secs(30),
            hold_age: Duration::from_secs(75),
            port_sleeps: false,
        })
    }

    fn with(policy: CyclePolicy) -> Self {
        let now = Instant::ZERO;
        let mut bench = Self {
            cycle: Lifecycle::new(policy, Epoch(0), now),
            host: HostBudget::new(WakeBudget { burst: 100, per_minute: 600 }, 8, now),
            now,
            power: Power::Running,
            done: Vec::new(),
            outstanding: None,
            fail: Vec::new(),
            hold_at: None,
            reports: Vec::new(),
        };
        bench.inspected(Power::Running);
        bench
    }

    fn asleep() -> Self {
        let mut bench = Self::awake();
        bench.sleep(Depth::Pause);
        assert_eq!(bench.cycle.state(), State::Asleep);
        bench.done.clear();
        bench
    }

    fn sleep(&mut self, depth: Depth) {
        self.cycle.sleep(self.now, depth, &mut self.host).unwrap();
        self.run();
    }

    fn inspected(&mut self, power: Power) {
        self.power = power;
        self.cycle.handle_inspected(self.now, power, &mut self.host);
        self.run();
    }

    fn event(&mut self, power: Power) {
        self.cycle.handle_event(self.now, power, &mut self.host);
        self.run();
    }

    fn frame(&mut self) {
        self.cycle.handle_frame(self.now, self.cycle.epoch(), SYN, &mut self.host);
        self.run();
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.cycle.handle_timeout(self.now, &mut self.host);
        self.run();
    }

    /// Performs orders until none is left or the one to stop at is outstanding.
    fn run(&mut self) {
        for _ in 0..100 {
            while let Some(report) = self.cycle.poll_report() {
                self.reports.push(report);
            }
            let Some(order) = self.cycle.poll_order() else { return };
            if self.hold_at == Some(order.action) {
                self.outstanding = Some(order);
                continue;
            }
            self.complete(order);
        }
        panic!("the cycle does not come to rest: {:?}", self.cycle);
    }

    fn complete(&mut self, order: Order) {
        let result = if self.fail.contains(&order.action) {
            Err("made to fail".to_owned())
        } else {
            self.done.push(order.action);
            match order.action {
                Action::Sleep(Depth::Pause) => self.power = Power::Paused(PauseReason::User),
                Action::Sleep(Depth::Save) => self.power = Power::Saved,
                Action::Restore => self.power = Power::Paused(PauseReason::Restored),
                Action::Resume => self.power = Power::Running,
                Action::Inspect => self.cycle.handle_inspected(self.now, self.power, &mut self.host),
                _ => {}
            }
            Ok(())
        };
        self.cycle.handle_done(self.now, order.ticket, result, &mut self.host);
    }

    /// Lets the outstanding order end.
    fn let_go(&mut self) {
        self.hold_at = None;
        let order = self.outstanding.take().expect("an order is outstanding");
        self.complete(order);
        self.run();
    }

    fn position(&self, action: Action) -> usize {
        self.done.iter().position(|a| *a == action).unwrap_or_else(|| panic!("{action:?} in {:?}", self.done))
    }
}

#[test]
fn a_sleep_watches_fences_steers_takes_floods_drains_stops_and_speaks_in_this_order() {
    let mut b = Bench::awake();
    b.sleep(Depth::Pause);
    assert_eq!(
        b.done,
        [
            Action::Record(Intent::Sleep),
            Action::Watch,
            Action::Mode(Mode::Fence { flooded: false }),
            Action::Steer,
            Action::Mode(Mode::Fence { flooded: true }),
            Action::TakeFloods,
            Action::Barrier,
            Action::Sleep(Depth::Pause),
            Action::Mode(Mode::Answer),
        ]
    );
    assert!(b.cycle.slept_by_us());
}

#[test]
fn a_wake_is_silent_before_it_resumes_and_releases_after_the_last_frame() {
    let mut b = Bench::asleep();
    b.frame();
    assert_eq!(
        b.done,
        [
            Action::Record(Intent::Wake),
            Action::Mode(Mode::Hold { flooded: true }),
            Action::ReturnFloods,
            Action::Mode(Mode::Hold { flooded: false }),
            Action::Resume,
            Action::Mode(Mode::Replay { released: false }),
            Action::Release,
            Action::Mode(Mode::Replay { released: true }),
            Action::Record(Intent::Awake),
        ]
    );
    assert_eq!(b.cycle.state(), State::Awake);
    assert_eq!(b.host.waking(), 0);
}

#[test]
fn a_restore_runs_while_we_still_answer() {
    let mut b = Bench::awake();
    b.sleep(Depth::Save);
    b.done.clear();
    b.frame();
    assert!(b.position(Action::Restore) < b.position(Action::Mode(Mode::Hold { flooded: true })));
    assert!(b.position(Action::Mode(Mode::Hold { flooded: false })) < b.position(Action::Resume));
    assert_eq!(b.cycle.state(), State::Awake);
}

#[test]
fn a_port_that_sleeps_is_disabled_after_the_stop_and_enabled_before_the_resume() {
    let mut b = Bench::with(CyclePolicy {
        wake: WakePolicy::Managed,
        budget: WakeBudget::default(),
        wake_timeout: Duration::from_secs(30),
        hold_age: Duration::from_secs(75),
        port_sleeps: true,
    });
    b.sleep(Depth::Pause);
    b.frame();
    assert!(b.position(Action::Sleep(Depth::Pause)) < b.position(Action::Port { enabled: false }));
    assert!(b.position(Action::Port { enabled: false }) < b.position(Action::Mode(Mode::Answer)));
    assert!(b.position(Action::Port { enabled: true }) < b.position(Action::Resume));
}

#[test]
fn a_sleeper_s_port_that_the_kernel_enables_is_disabled_again() {
    let mut b = Bench::with(CyclePolicy {
        wake: WakePolicy::Managed,
        budget: WakeBudget::default(),
        wake_timeout: Duration::from_secs(30),
        hold_age: Duration::from_secs(75),
        port_sleeps: true,
    });
    b.sleep(Depth::Pause);
    b.done.clear();
    b.cycle.handle_port_enabled(b.now, &mut b.host);
    b.run();
    assert_eq!(b.done, [Action::Port { enabled: false }]);
    assert_eq!(b.cycle.state(), State::Asleep);
    // Also while it is asked about: not a word before.
    b.hold_at = Some(Action::Inspect);
    b.event(Power::Running);
    b.cycle.handle_port_enabled(b.now, &mut b.host);
    b.done.clear();
    b.let_go();
    assert!(b.position(Action::Port { enabled: false }) < b.position(Action::Mode(Mode::Answer)));
    b.frame();
    b.done.clear();
    b.cycle.handle_port_enabled(b.now, &mut b.host);
    b.run();
    assert_eq!(b.done, [], "awake: it is meant to be enabled");
}

#[test]
fn a_frame_before_the_stop_breaks_the_sleep_off_without_stopping_the_guest() {
    let mut b = Bench::awake();
    b.hold_at = Some(Action::Barrier);
    b.sleep(Depth::Pause);
    b.frame();
    b.let_go();
    assert!(!b.done.contains(&Action::Sleep(Depth::Pause)));
    assert!(!b.done.contains(&Action::Resume));
    assert_eq!(b.cycle.state(), State::Awake);
    assert!(b.reports.iter().any(|r| matches!(r, Report::Aborted(_))));
    assert!(b.done.contains(&Action::Release));
}

#[test]
fn a_frame_while_the_stop_is_under_way_wakes_it_without_a_word_of_ours() {
    let mut b = Bench::awake();
    b.hold_at = Some(Action::Sleep(Depth::Pause));
    b.sleep(Depth::Pause);
    b.frame();
    b.event(Power::Paused(PauseReason::User));
    b.let_go();
    assert!(!b.done.contains(&Action::Mode(Mode::Answer)));
    assert!(b.done.contains(&Action::Resume));
    assert_eq!(b.cycle.state(), State::Awake);
}

#[test]
fn a_drain_that_is_never_answered_counts_as_done_after_a_second() {
    let mut b = Bench::awake();
    b.hold_at = Some(Action::Barrier);
    b.sleep(Depth::Pause);
    b.pass(999 * MS);
    assert_eq!(b.cycle.state(), State::Settling);
    b.pass(MS);
    assert_eq!(b.cycle.state(), State::Asleep);
}

#[test]
fn a_guest_is_watched_for_three_seconds_at_most_before_it_sleeps() {
    let mut b = Bench::awake();
    b.hold_at = Some(Action::Watch);
    b.sleep(Depth::Pause);
    b.pass(2_999 * MS);
    assert_eq!((b.cycle.state(), b.cycle.facts().mode), (State::Settling, Mode::Pass));
    b.pass(MS);
    assert_eq!(b.cycle.state(), State::Asleep);
    // Its end comes late, and is nobody's any more.
    let order = b.outstanding.take().unwrap();
    b.cycle.handle_done(b.now, order.ticket, Ok(()), &mut b.host);
    b.run();
    assert_eq!(b.cycle.state(), State::Asleep);
}

#[test]
fn a_watch_is_given_up_for_a_wake_and_for_a_guest_that_stops() {
    let watched = || {
        let mut b = Bench::awake();
        b.hold_at = Some(Action::Watch);
        b.sleep(Depth::Pause);
        b
    };
    let mut b = watched();
    b.cycle.wake(b.now, &mut b.host).unwrap();
    b.run();
    assert_eq!(b.cycle.state(), State::Awake);
    assert!(!b.done.iter().any(|action| matches!(action, Action::Mode(Mode::Fence { .. }) | Action::Steer)));
    let mut b = watched();
    b.power = Power::Paused(PauseReason::User);
    b.event(b.power);
    assert_eq!(b.cycle.state(), State::Asleep, "there is nothing left to watch");
    let mut b = watched();
    b.power = Power::Off;
    b.event(b.power);
    assert_eq!((b.cycle.state(), b.cycle.facts().mode), (State::Awake, Mode::Pass));
    let mut b = watched();
    b.cycle.handle_port_lost(b.now, &mut b.host);
    b.hold_at = None;
    b.run();
    assert_eq!(b.cycle.state(), State::Asleep, "it is watched again at the next port");
}

#[test]
fn a_guest_suspended_by_somebody_else_is_stood_in_for_but_not_woken_by_traffic() {
    let mut b = Bench::awake();
    b.power = Power::Paused(PauseReason::User);
    b.event(b.power);
    assert_eq!(b.cycle.state(), State::Asleep);
    assert!(!b.done.contains(&Action::Sleep(Depth::Pause)));
    assert!(!b.cycle.slept_by_us());
    b.frame();
    assert_eq!(b.cycle.state(), State::Asleep);
    assert!(b.reports.contains(&Report::WakeForbidden(SYN)));
    b.cycle.wake(b.now, &mut b.host).unwrap();
    b.run();
    assert_eq!(b.cycle.state(), State::Awake);
}

#[test]
fn a_guest_resumed_by_somebody_else_is_never_spoken_over_nor_resumed_again() {
    let mut b = Bench::asleep();
    b.power = Power::Running;
    b.event(Power::Running);
    assert_eq!(b.done.first(), Some(&Action::Mode(Mode::Hold { flooded: true })), "silent before asking");
    assert!(!b.done.contains(&Action::Resume));
    assert_eq!(b.cycle.state(), State::Awake);
}

#[test]
fn a_late_event_that_contradicts_the_hypervisor_changes_nothing() {
    let mut b = Bench::asleep();
    b.event(Power::Running);
    assert_eq!(b.cycle.state(), State::Asleep);
    assert_eq!(b.cycle.facts().mode, Mode::Answer);
    let mut b = Bench::awake();
    b.event(Power::Paused(PauseReason::User));
    assert_eq!(b.cycle.state(), State::Awake);
    assert!(!b.done.contains(&Action::Steer));
}

#[test]
fn a_pause_for_a_job_or_an_error_is_no_sleep() {
    for reason in [PauseReason::Busy, PauseReason::IoError, PauseReason::Failed] {
        let mut b = Bench::awake();
        b.power = Power::Paused(reason);
        b.event(b.power);
        assert_eq!(b.cycle.state(), State::Awake);
        assert!(!b.done.contains(&Action::Steer));
    }
}

#[test]
fn a_failed_wake_strands_it_and_is_tried_again_with_back_off() {
    let mut b = Bench::asleep();
    b.fail = vec![Action::Resume];
    b.frame();
    assert_eq!(b.cycle.state(), State::Stranded);
    assert_eq!(b.cycle.facts().mode, Mode::Answer, "we go on standing in");
    assert!(b.cycle.facts().floods_taken);
    b.pass(999 * MS);
    assert_eq!(b.cycle.state(), State::Stranded);
    b.pass(MS);
    assert_eq!(b.cycle.state(), State::Stranded, "the second try failed too");
    b.fail.clear();
    b.pass(1999 * MS);
    assert_eq!(b.cycle.state(), State::Stranded);
    b.pass(MS);
    assert_eq!(b.cycle.state(), State::Awake);
    assert_eq!(b.host.waking(), 0);
}

#[test]
fn a_resume_that_a_full_disk_undoes_strands_it() {
    let mut b = Bench::asleep();
    b.hold_at = Some(Action::Mode(Mode::Replay { released: false }));
    b.frame();
    assert_eq!(b.cycle.state(), State::Replaying);
    b.hold_at = None;
    b.power = Power::Paused(PauseReason::IoError);
    b.event(b.power);
    assert_eq!(b.cycle.state(), State::Stranded);
    b.pass(Duration::from_secs(1));
    assert_eq!(b.cycle.state(), State::Awake);
}

#[test]
fn a_suspend_that_never_returns_strands_only_the_guest_and_gives_its_frames_back() {
    let mut b = Bench::awake();
    b.hold_at = Some(Action::Sleep(Depth::Pause));
    b.sleep(Depth::Pause);
    b.pass(PAUSE_TIMEOUT);
    assert_eq!(b.cycle.state(), State::Stranded);
    assert!(!b.cycle.facts().steered);
    assert_eq!(b.cycle.wake(b.now, &mut b.host), Err(CommandRefused::Stuck));
    b.let_go();
    assert_eq!(b.cycle.state(), State::Stranded, "it was suspended in the end: stood in for");
    assert_eq!(b.cycle.facts().mode, Mode::Answer);
    b.pass(Duration::from_secs(1));
    assert_eq!(b.cycle.state(), State::Awake);
}

#[test]
fn a_resume_that_never_returns_leaves_us_silent() {
    let mut b = Bench::asleep();
    b.hold_at = Some(Action::Resume);
    b.frame();
    b.pass(Duration::from_secs(30));
    assert_eq!(b.cycle.state(), State::Stranded);
    assert_eq!(b.cycle.facts().mode, Mode::Hold { flooded: false });
    b.let_go();
    assert_eq!(b.cycle.state(), State::Awake);
}

#[test]
fn a_guest_deleted_in_its_sleep_is_forgotten() {
    let mut b = Bench::asleep();
    b.power = Power::Gone;
    b.event(Power::Gone);
    assert!(b.done.contains(&Action::Forget));
    assert_eq!(b.cycle.state(), State::Awake);
    assert_eq!(b.cycle.facts().mode, Mode::Pass);
    assert_eq!(
        b.cycle.sleep(b.now, Depth::Pause, &mut b.host),
        Err(CommandRefused::NotRunning("unknown to its hypervisor"))
    );
}

#[test]
fn wakes_beyond_the_budget_are_put_off_not_lost() {
    let mut b = Bench::asleep();
    for _ in 0..2 {
        b.frame();
        assert_eq!(b.cycle.state(), State::Awake);
        b.sleep(Depth::Pause);
    }
    b.frame();
    assert_eq!(b.cycle.state(), State::Asleep);
    assert!(b.reports.contains(&Report::WakePutOff(SYN, Limit::Guest)));
    b.pass(Duration::from_secs(10));
    assert_eq!(b.cycle.state(), State::Awake);
}

#[test]
fn after_a_restart_a_sleeper_is_stood_in_for_and_woken_as_before() {
    let mut b = Bench::awake();
    b.cycle = Lifecycle::new(b.cycle.policy, Epoch(7), b.now);
    b.cycle.recall(Intent::Sleep, Depth::Save);
    b.inspected(Power::Saved);
    assert_eq!(b.cycle.state(), State::Asleep);
    assert!(b.cycle.slept_by_us());
    assert!(b.cycle.epoch() > Epoch(7));
    b.frame();
    assert_eq!(b.cycle.state(), State::Awake);
}

#[test]
fn after_a_restart_a_wake_that_was_cut_short_is_finished() {
    let mut b = Bench::awake();
    b.cycle = Lifecycle::new(b.cycle.policy, Epoch(7), b.now);
    b.cycle.recall(Intent::Wake, Depth::Save);
    b.inspected(Power::Paused(PauseReason::Restored));
    assert_eq!(b.cycle.state(), State::Awake);
    assert!(b.done.contains(&Action::Resume));
}

#[test]
fn a_sleep_that_cannot_be_fenced_is_not_begun() {
    let mut b = Bench::awake();
    b.fail = vec![Action::Steer];
    b.sleep(Depth::Pause);
    assert_eq!(b.cycle.state(), State::Awake);
    assert!(!b.done.contains(&Action::Sleep(Depth::Pause)));
    assert!(b.reports.iter().any(|r| matches!(r, Report::Failed(why) if why.starts_with("steering"))));
    assert!(b.reports.contains(&Report::Aborted("made to fail".to_owned())), "the reason is told with it");
}

#[test]
fn a_step_that_failed_by_half_is_undone() {
    for (fails, undone) in [(Action::Steer, Action::Release), (Action::TakeFloods, Action::ReturnFloods)] {
        let mut b = Bench::awake();
        b.fail = vec![fails];
        b.sleep(Depth::Pause);
        assert_eq!(b.cycle.state(), State::Awake);
        assert!(b.done.contains(&undone), "{undone:?} in {:?}", b.done);
    }
}

#[test]
fn a_late_completion_and_a_frame_of_an_old_epoch_are_ignored() {
    let mut b = Bench::asleep();
    let old = b.cycle.epoch();
    b.frame();
    b.sleep(Depth::Pause);
    b.cycle.handle_frame(b.now, old, SYN, &mut b.host);
    b.cycle.handle_done(b.now, 3, Err("late".to_owned()), &mut b.host);
    b.run();
    assert_eq!(b.cycle.state(), State::Asleep);
}

#[test]
fn a_lost_port_is_stood_in_from_anew() {
    let mut b = Bench::asleep();
    b.cycle.handle_port_lost(b.now, &mut b.host);
    b.run();
    assert!(b.done.contains(&Action::Steer));
    assert_eq!(b.cycle.facts().mode, Mode::Answer);
    assert_eq!(b.cycle.state(), State::Asleep);
}

#[test]
fn what_was_steered_to_the_new_port_before_its_loss_was_told_is_released() {
    let mut b = Bench::asleep();
    b.hold_at = Some(Action::Mode(Mode::Fence { flooded: false }));
    b.cycle.handle_port_lost(b.now, &mut b.host);
    b.run();
    b.power = Power::Paused(PauseReason::Busy);
    b.event(b.power);
    b.let_go();
    b.power = Power::Running;
    b.event(b.power);
    assert_eq!(b.cycle.state(), State::Awake);
    assert!(b.done.contains(&Action::Release), "{:?}", b.done);
}

#[test]
fn while_the_hypervisor_is_away_a_sleeper_is_answered_for_and_woken_when_it_is_back() {
    let mut bench = Bench::asleep();
    bench.cycle.set_reachable(bench.now, false, &mut bench.host);
    let refused = bench.cycle.wake(bench.now, &mut bench.host);
    assert_eq!(refused, Err(CommandRefused::Unreachable));
    bench.frame();
    bench.frame();
    bench.pass(Duration::from_secs(600));
    assert_eq!(bench.cycle.state(), State::Asleep);
    assert_eq!(bench.done, [], "nothing is asked of it, and our voice goes on");
    let told = bench.reports.iter().filter(|r| matches!(r, Report::Failed(_))).count();
    assert_eq!(told, 1, "said once: {:?}", bench.reports);

    bench.cycle.set_reachable(bench.now, true, &mut bench.host);
    bench.run();
    assert_eq!(bench.cycle.state(), State::Awake);
}

#[test]
fn a_wake_that_the_hypervisor_s_end_cut_short_goes_on_when_it_is_back() {
    let mut bench = Bench::asleep();
    bench.fail = vec![Action::Resume, Action::Inspect];
    bench.frame();
    assert_eq!(bench.cycle.state(), State::Waking, "nobody knows whether it runs: we are silent");
    bench.cycle.set_reachable(bench.now, false, &mut bench.host);
    bench.pass(Duration::from_secs(10));
    bench.fail.clear();
    bench.cycle.set_reachable(bench.now, true, &mut bench.host);
    bench.run();
    bench.pass(Duration::from_secs(2));
    assert_eq!(bench.cycle.state(), State::Awake);
}

#[test]
fn an_order_to_an_engine_that_is_gone_is_not_waited_for() {
    for stops_at in [
        Action::Mode(Mode::Fence { flooded: false }),
        Action::Mode(Mode::Replay { released: false }),
        Action::Mode(Mode::Replay { released: true }),
    ] {
        let mut b = Bench::awake();
        b.hold_at = Some(stops_at);
        b.sleep(Depth::Pause);
        b.frame();
        b.hold_at = None;
        b.cycle.handle_port_lost(b.now, &mut b.host);
        b.run();
        assert!(matches!(b.cycle.state(), State::Awake | State::Asleep), "{:?}", b.cycle);
    }
}

#[test]
fn after_a_restart_in_the_middle_of_a_save_the_sleeper_is_ours() {
    let mut b = Bench::awake();
    b.cycle = Lifecycle::new(b.cycle.policy, Epoch(7), b.now);
    b.cycle.recall(Intent::Sleep, Depth::Save);
    b.inspected(Power::Paused(PauseReason::Busy));
    assert_eq!(b.cycle.state(), State::Awake);
    b.power = Power::Saved;
    b.event(b.power);
    assert_eq!(b.cycle.state(), State::Asleep);
    assert!(b.cycle.slept_by_us());
}

#[test]
fn what_was_recorded_of_a_guest_that_is_found_running_or_off_no_longer_counts() {
    for found in [Power::Running, Power::Off] {
        let mut b = Bench::awake();
        b.cycle = Lifecycle::new(b.cycle.policy, Epoch(7), b.now);
        b.cycle.recall(Intent::Sleep, Depth::Pause);
        b.inspected(found);
        b.power = Power::Paused(PauseReason::User);
        b.event(b.power);
        assert_eq!(b.cycle.state(), State::Asleep);
        assert!(!b.cycle.slept_by_us(), "{found:?}");
    }
}

#[test]
fn what_an_earlier_daemon_left_is_undone_though_the_stand_in_is_aborted() {
    let mut b = Bench::awake();
    b.cycle = Lifecycle::new(b.cycle.policy, Epoch(7), b.now);
    b.cycle.recall(Intent::Sleep, Depth::Pause);
    b.hold_at = Some(Action::Mode(Mode::Fence { flooded: false }));
    b.inspected(Power::Paused(PauseReason::User));
    b.power = Power::Running;
    b.event(b.power);
    b.let_go();
    assert_eq!(b.cycle.state(), State::Awake);
    assert!(b.done.contains(&Action::ReturnFloods) && b.done.contains(&Action::Release), "{:?}", b.done);
}

#[test]
fn a_release_that_failed_by_half_is_steered_anew_if_the_guest_stops() {
    let mut b = Bench::asleep();
    b.fail = vec![Action::Release];
    b.frame();
    b.done.clear();
    b.power = Power::Paused(PauseReason::User);
    b.event(b.power);
    b.pass(Duration::from_secs(1));
    assert_eq!(b.cycle.state(), State::Asleep);
    assert!(b.done.contains(&Action::Steer), "{:?}", b.done);
}

#[test]
fn an_answer_older_than_an_event_is_asked_for_again() {
    let mut b = Bench::asleep();
    b.hold_at = Some(Action::Inspect);
    b.event(Power::Running);
    let asked = b.outstanding.take().expect("it asks");
    // It was looked at; then somebody resumed it; then the answer comes.
    b.event(Power::Running);
    b.cycle.handle_inspected(b.now, Power::Paused(PauseReason::User), &mut b.host);
    b.hold_at = None;
    b.power = Power::Running;
    b.cycle.handle_done(b.now, asked.ticket, Ok(()), &mut b.host);
    assert_eq!(b.cycle.facts().mode, Mode::Hold { flooded: true }, "not a word until it is sure");
    b.run();
    assert_eq!(b.cycle.state(), State::Awake);
}

#[test]
fn an_old_answer_does_not_cover_an_event_that_came_before_it() {
    let mut b = Bench::asleep();
    b.hold_at = Some(Action::Inspect);
    b.event(Power::Running);
    let asked = b.outstanding.take().expect("it asks");
    // It was looked at twice; then somebody resumed it; then both answers come.
    b.event(Power::Running);
    b.event(Power::Paused(PauseReason::User));
    b.cycle.handle_inspected(b.now, Power::Paused(PauseReason::User), &mut b.host);
    b.hold_at = None;
    b.power = Power::Running;
    b.cycle.handle_done(b.now, asked.ticket, Ok(()), &mut b.host);
    assert_eq!(b.cycle.facts().mode, Mode::Hold { flooded: true }, "not a word until it is sure");
    b.run();
    assert_eq!(b.cycle.state(), State::Awake);
}

#[test]
fn the_pause_that_a_save_begins_with_is_no_contradiction() {
    let mut b = Bench::awake();
    b.hold_at = Some(Action::Sleep(Depth::Save));
    b.sleep(Depth::Save);
    b.event(Power::Paused(PauseReason::Busy));
    b.event(Power::Saved);
    b.let_go();
    assert_eq!(b.cycle.state(), State::Asleep);
    assert!(!b.done.contains(&Action::Inspect), "{:?}", b.done);
}

#[test]
fn a_guest_started_while_it_was_being_forgotten_is_known_to_run() {
    let mut b = Bench::asleep();
    b.hold_at = Some(Action::Forget);
    b.power = Power::Off;
    b.event(b.power);
    b.power = Power::Running;
    b.event(b.power);
    b.let_go();
    assert_eq!((b.cycle.state(), b.cycle.facts().power), (State::Awake, Power::Running));
}

#[test]
fn a_forged_source_neither_wakes_a_sleeper_past_its_budget_nor_loses_its_wake() {
    let mut b = Bench::asleep();
    for _ in 0..2 {
        b.frame();
        b.pass(Duration::from_millis(1));
        b.sleep(Depth::Pause);
    }
    b.frame();
    assert_eq!(b.cycle.state(), State::Asleep, "put off");
    b.cycle.handle_guest_spoke(b.now, b.cycle.epoch(), &mut b.host);
    b.run();
    assert_eq!(b.cycle.state(), State::Asleep, "still put off, whoever forges the guest's MAC");
    b.pass(Duration::from_secs(20));
    assert_eq!(b.cycle.state(), State::Awake, "and not forgotten");
}

#[test]
fn when_one_nic_hears_the_guest_all_fall_silent_before_it_is_asked_about() {
    let mut b = Bench::asleep();
    b.power = Power::Running;
    b.cycle.handle_guest_spoke(b.now, b.cycle.epoch(), &mut b.host);
    b.run();
    assert_eq!(b.done.first(), Some(&Action::Mode(Mode::Hold { flooded: true })), "{:?}", b.done);
}

#[test]
fn while_a_resume_hangs_nothing_that_is_heard_makes_us_speak() {
    let mut b = Bench::asleep();
    b.hold_at = Some(Action::Resume);
    b.frame();
    b.pass(Duration::from_secs(30));
    b.done.clear();
    b.event(Power::Running);
    assert!(
        b.done.contains(&Action::Inspect) && !b.done.contains(&Action::Mode(Mode::Answer)),
        "{:?}",
        b.done
    );
    assert_eq!(b.cycle.state(), State::Stranded);
    b.let_go();
    assert_eq!(b.cycle.state(), State::Awake);
}

#[test]
fn a_guest_that_stopped_though_the_suspend_hangs_is_stood_in_for() {
    let mut b = Bench::awake();
    b.hold_at = Some(Action::Sleep(Depth::Pause));
    b.sleep(Depth::Pause);
    b.power = Power::Paused(PauseReason::User);
    b.event(b.power);
    b.pass(PAUSE_TIMEOUT);
    assert_eq!((b.cycle.state(), b.cycle.facts().mode), (State::Stranded, Mode::Answer));
    b.frame();
    assert!(!b.done.contains(&Action::Resume), "one call at a time");
    b.let_go();
    b.pass(Duration::from_secs(1));
    assert_eq!(b.cycle.state(), State::Awake);
}

#[test]
fn a_replay_that_was_doubted_goes_on_before_the_release() {
    let mut b = Bench::asleep();
    let replay = Action::Mode(Mode::Replay { released: false });
    b.hold_at = Some(replay);
    b.frame();
    b.event(Power::Paused(PauseReason::User));
    assert!(b.done.contains(&Action::Inspect), "a late event, and it runs: {:?}", b.done);
    assert!(!b.done.contains(&Action::Release));
    b.let_go();
    assert!(b.position(replay) < b.position(Action::Release));
    assert_eq!(b.cycle.state(), State::Awake);
}

/// The times, in milliseconds, at which something failed within `time`.
fn failures(b: &mut Bench, time: Duration) -> Vec<u128> {
    let (begun, mut at) = (b.now, Vec::new());
    let failed = |b: &Bench| b.reports.iter().filter(|report| matches!(report, Report::Failed(_))).count();
    let mut before = failed(b);
    while let Some(due) = b.cycle.poll_timeout().filter(|due| due.since(begun) <= time) {
        b.pass(due.since(b.now));
        let after = failed(b);
        at.extend((before..after).map(|_| b.now.since(begun).as_millis()));
        before = after;
    }
    at
}

#[test]
fn a_step_that_goes_on_failing_is_tried_ever_more_rarely_but_in_time_for_what_is_held() {
    let mut b = Bench::asleep();
    b.fail = vec![Action::ReturnFloods];
    b.frame();
    let at = failures(&mut b, Duration::from_secs(150));
    assert_eq!(at, [1_000, 3_000, 7_000, 15_000, 31_000, 63_000, 100_500, 138_000]);
    // It goes well once, so the next failure is a first one again.
    b.fail = vec![Action::Release];
    b.pass(Duration::from_secs(38));
    assert!(b.done.contains(&Action::ReturnFloods), "{:?}", b.done);
    assert_eq!(failures(&mut b, Duration::from_secs(4)), [1_000, 3_000]);
}

#[test]
fn no_frame_grows_too_old_between_two_tries_of_a_wake() {
    let mut b = Bench::with(CyclePolicy { hold_age: Duration::from_secs(10), ..Bench::awake().cycle.policy });
    b.sleep(Depth::Pause);
    b.fail = vec![Action::Resume];
    b.frame();
    assert_eq!(b.cycle.state(), State::Stranded);
    assert_eq!(failures(&mut b, Duration::from_secs(20)), [1_000, 3_000, 7_000, 12_000, 17_000]);
    let tight = CyclePolicy { hold_age: Duration::from_millis(50), ..b.cycle.policy };
    let mut b = Bench::with(tight);
    b.sleep(Depth::Pause);
    b.fail = vec![Action::ReturnFloods];
    b.frame();
    assert_eq!(failures(&mut b, Duration::from_secs(3)), [1_000, 2_000, 3_000], "and never without pause");
}

#[test]
fn a_command_and_a_changed_fact_have_a_failed_step_tried_at_once() {
    let mut b = Bench::asleep();
    b.fail = vec![Action::ReturnFloods];
    b.frame();
    failures(&mut b, Duration::from_secs(70));
    b.fail.clear();
    b.cycle.wake(b.now, &mut b.host).unwrap();
    b.run();
    assert_eq!(b.cycle.state(), State::Awake);

    let mut b = Bench::with(CyclePolicy { port_sleeps: true, ..b.cycle.policy });
    b.sleep(Depth::Pause);
    b.fail = vec![Action::Port { enabled: false }];
    b.cycle.handle_port_enabled(b.now, &mut b.host);
    b.run();
    failures(&mut b, Duration::from_secs(70));
    assert_eq!(b.cycle.facts().mode, Mode::Answer);
    b.done.clear();
    b.power = Power::Running;
    b.event(b.power);
    assert_eq!(b.done.first(), Some(&Action::Mode(Mode::Hold { flooded: true })), "silent at once");
    assert_eq!(b.cycle.state(), State::Awake);
}

#[test]
fn frames_do_not_hasten_the_next_try_of_a_failed_wake() {
    let mut b = Bench::asleep();
    b.fail = vec![Action::Resume];
    b.hold_at = Some(Action::Mode(Mode::Answer));
    b.frame();
    assert_eq!(b.cycle.state(), State::Settling, "stood in for again");
    // What is held asks again in the new epoch, before the mode is confirmed.
    b.frame();
    b.let_go();
    b.frame();
    assert_eq!(b.cycle.state(), State::Stranded);
    assert_eq!(b.reports.iter().filter(|report| matches!(report, Report::Waking(_))).count(), 1);
    assert_eq!(failures(&mut b, Duration::from_secs(4)), [1_000, 3_000]);
}

/// A sleep that a frame aborts while the guest runs.
fn broken_off(b: &mut Bench) {
    b.hold_at = Some(Action::Barrier);
    b.sleep(Depth::Pause);
    b.frame();
    b.let_go();
    assert_eq!(b.cycle.state(), State::Awake);
}

#[test]
fn a_sleep_broken_off_by_a_frame_costs_a_wake_and_is_never_refused() {
    let mut b = Bench::awake();
    for _ in 0..3 {
        broken_off(&mut b);
    }
    b.sleep(Depth::Pause);
    b.frame();
    assert_eq!(b.cycle.state(), State::Asleep, "both wakes of the budget are used up");
    assert!(b.reports.contains(&Report::WakePutOff(SYN, Limit::Guest)));
    b.pass(Duration::from_secs(10));
    assert_eq!(b.cycle.state(), State::Awake);
    assert_eq!(b.host.waking(), 0);
}

#[test]
fn a_frame_that_comes_when_the_guest_is_stopped_already_wakes_it_within_the_budgets() {
    let mut b = Bench::awake();
    for (within, state) in [(true, State::Awake), (true, State::Awake), (false, State::Asleep)] {
        b.reports.clear();
        b.hold_at = Some(Action::Sleep(Depth::Pause));
        b.sleep(Depth::Pause);
        b.frame();
        b.event(Power::Paused(PauseReason::User));
        b.let_go();
        assert_eq!(b.cycle.state(), state, "{:?}", b.reports);
        let put_off = b.reports.iter().filter(|report| matches!(report, Report::WakePutOff(..))).count();
        assert_eq!(put_off, usize::from(!within));
    }
    b.pass(Duration::from_secs(10));
    assert_eq!(b.cycle.state(), State::Awake, "not forgotten");
    // A command is not bound by the budget.
    b.hold_at = Some(Action::Sleep(Depth::Pause));
    b.sleep(Depth::Pause);
    b.frame();
    b.cycle.wake(b.now, &mut b.host).unwrap();
    b.let_go();
    assert_eq!(b.cycle.state(), State::Awake);
    assert_eq!(b.host.waking(), 0);
}

#[test]
fn after_sleeps_that_came_to_nothing_the_guest_is_left_awake_ever_longer() {
    let mut b = Bench::awake();
    let left = |b: &Bench| b.cycle.left_awake_until(b.now).map(|at| at.since(b.now).as_secs());
    let mut waits = Vec::new();
    for _ in 0..11 {
        broken_off(&mut b);
        waits.push(left(&b).unwrap());
    }
    assert_eq!(waits, [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600]);
    b.pass(Duration::from_secs(3600));
    assert_eq!(left(&b), None);
    // One that failed counts as well; one that a person aborted does not.
    let mut b = Bench::awake();
    b.fail = vec![Action::Steer];
    b.sleep(Depth::Pause);
    assert_eq!((b.cycle.state(), left(&b)), (State::Awake, Some(10)));
    b.fail.clear();
    b.hold_at = Some(Action::Barrier);
    b.sleep(Depth::Pause);
    b.cycle.wake(b.now, &mut b.host).unwrap();
    b.let_go();
    assert_eq!((b.cycle.state(), left(&b)), (State::Awake, Some(10)));
    // A sleep that comes to its end forgives.
    b.sleep(Depth::Pause);
    b.frame();
    assert_eq!((b.cycle.state(), left(&b)), (State::Awake, None));
}

#[test]
fn a_port_that_cannot_be_disabled_keeps_nobody_from_waking() {
    let mut b = Bench::with(CyclePolicy { port_sleeps: true, ..Bench::awake().cycle.policy });
    b.fail = vec![Action::Port { enabled: false }];
    b.sleep(Depth::Pause);
    assert_eq!(b.cycle.state(), State::Settling);
    b.frame();
    b.pass(Duration::from_secs(1));
    assert_eq!(b.cycle.state(), State::Awake);
}

#[test]
fn a_guest_that_is_heard_before_every_nic_answers_is_asked_about() {
    let mut b = Bench::awake();
    b.hold_at = Some(Action::Mode(Mode::Answer));
    b.sleep(Depth::Pause);
    // One NIC answers already, hears it and is silent; the other one has not confirmed.
    b.cycle.handle_guest_spoke(b.now, b.cycle.epoch(), &mut b.host);
    b.let_go();
    assert!(b.done.contains(&Action::Inspect), "{:?}", b.done);
    assert_eq!((b.cycle.state(), b.cycle.facts().mode), (State::Asleep, Mode::Answer));
    assert_eq!(b.done.last(), Some(&Action::Mode(Mode::Answer)), "all are told to answer again");
}

#[test]
fn what_puts_a_wake_off_is_told_apart() {
    let budget = WakeBudget { burst: 1, per_minute: 6 };
    for (host, limit) in [
        (HostBudget::new(WakeBudget { burst: 9, per_minute: 6 }, 1, Instant::ZERO), Limit::Ceiling),
        (HostBudget::new(budget, 9, Instant::ZERO), Limit::Host),
    ] {
        let mut b = Bench::asleep();
        b.host = host;
        b.host.begin(b.now).unwrap();
        b.frame();
        assert_eq!(b.cycle.state(), State::Asleep);
        assert!(b.reports.contains(&Report::WakePutOff(SYN, limit)), "{:?}", b.reports);
    }
}

#[test]
fn a_commanded_wake_takes_a_place_also_when_it_breaks_the_stand_in_off() {
    let mut b = Bench::awake();
    b.host = HostBudget::new(WakeBudget { burst: 9, per_minute: 6 }, 1, b.now);
    b.host.begin(b.now).unwrap();
    b.hold_at = Some(Action::Steer);
    b.power = Power::Paused(PauseReason::User);
    b.event(b.power);
    b.cycle.wake(b.now, &mut b.host).unwrap();
    b.let_go();
    assert_eq!(b.cycle.state(), State::Awake, "it waits for no place");
    assert_eq!(b.host.waking(), 1);

    b.power = Power::Paused(PauseReason::User);
    b.event(b.power);
    b.hold_at = Some(Action::Resume);
    b.cycle.wake(b.now, &mut b.host).unwrap();
    b.run();
    assert_eq!(b.host.waking(), 2);
    b.let_go();
    assert_eq!((b.cycle.state(), b.host.waking()), (State::Awake, 1));
}

#[test]
fn a_stopped_guest_whose_stand_in_goes_on_failing_wakes_when_that_is_wanted() {
    for fails in [Action::Steer, Action::TakeFloods] {
        let mut b = Bench::awake();
        b.fail = vec![fails];
        b.power = Power::Paused(PauseReason::User);
        b.event(b.power);
        failures(&mut b, Duration::from_secs(10));
        assert_eq!(b.cycle.state(), State::Settling);
        b.hold_at = Some(Action::Resume);
        b.cycle.wake(b.now, &mut b.host).unwrap();
        b.run();
        assert_eq!((b.cycle.state(), b.host.waking()), (State::Waking, 1), "{fails:?}");
        b.let_go();
        assert_eq!((b.cycle.state(), b.host.waking()), (State::Awake, 0), "{fails:?}");
        assert!(!b.cycle.facts().steered && !b.cycle.facts().floods_taken, "{:?}", b.cycle.facts());
    }
    // A frame wakes it within the budgets, as always.
    let mut b = Bench::awake();
    b.cycle = Lifecycle::new(b.cycle.policy, Epoch(7), b.now);
    b.cycle.recall(Intent::Sleep, Depth::Pause);
    b.fail = vec![Action::TakeFloods];
    b.inspected(Power::Paused(PauseReason::User));
    b.frame();
    assert_eq!(b.cycle.state(), State::Settling);
    b.pass(Duration::from_secs(1));
    assert_eq!(b.cycle.state(), State::Awake);
}

#[test]
fn a_wake_gives_its_place_back_when_the_guest_runs_however_long_its_replay_goes_on() {
    let mut b = Bench::asleep();
    b.hold_at = Some(Action::Resume);
    b.frame();
    assert_eq!((b.cycle.state(), b.host.waking()), (State::Waking, 1));
    b.hold_at = Some(Action::Mode(Mode::Replay { released: false }));
    let resume = b.outstanding.take().unwrap();
    b.complete(resume);
    b.run();
    assert_eq!((b.cycle.state(), b.host.waking()), (State::Replaying, 0));
    // Another guest has that place; the end of the replay does not give it back once more.
    b.host.begin(b.now).unwrap();
    b.let_go();
    assert_eq!((b.cycle.state(), b.host.waking()), (State::Awake, 1));
}

#[test]
fn a_sleeper_that_is_heard_while_it_is_restored_is_asked_about_and_answered_for_again() {
    let mut b = Bench::awake();
    b.sleep(Depth::Save);
    let voice = b.cycle.epoch();
    b.hold_at = Some(Action::Restore);
    b.frame();
    assert_eq!((b.cycle.state(), b.cycle.facts().mode), (State::Waking, Mode::Answer));
    // The engine fell silent, and knows of no later epoch.
    let again = [Action::Mode(Mode::Hold { flooded: true }), Action::Inspect, Action::Mode(Mode::Answer)];
    b.cycle.handle_guest_spoke(b.now, voice, &mut b.host);
    b.run();
    // The call hangs.
    b.done.clear();
    b.pass(Duration::from_secs(30));
    assert_eq!((b.cycle.state(), &b.done[..]), (State::Stranded, &again[..]));
    b.done.clear();
    b.cycle.handle_guest_spoke(b.now, b.cycle.epoch(), &mut b.host);
    b.run();
    assert_eq!((b.cycle.state(), &b.done[..]), (State::Stranded, &again[..]));
    // What was said in an earlier sleep is no word about this one.
    b.done.clear();
    b.cycle.handle_guest_spoke(b.now, voice, &mut b.host);
    b.run();
    assert_eq!(b.done, []);
}

#[test]
fn a_stranded_guest_that_is_heard_while_its_restore_hangs_is_answered_for_again() {
    let mut b = Bench::awake();
    b.sleep(Depth::Save);
    let voice = b.cycle.epoch();
    b.hold_at = Some(Action::Restore);
    b.frame();
    b.pass(Duration::from_secs(30));
    b.done.clear();
    b.cycle.handle_guest_spoke(b.now, voice, &mut b.host);
    b.run();
    let again = [Action::Mode(Mode::Hold { flooded: true }), Action::Inspect, Action::Mode(Mode::Answer)];
    assert_eq!((b.cycle.state(), &b.done[..]), (State::Stranded, &again[..]));
}
