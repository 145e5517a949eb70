import GatewayCore
import Testing

@testable import Journal

/// The policy on a clock of its own: Records come, and whenever something is due all of them are committed.
private struct Office {
    var policy: CommitPolicy
    var demand = CommitPolicy.Demand()
    var now = Instant(milliseconds: 1_000_000)
    var commits: [UInt64] = []

    init(_ plan: CommitPlan) {
        policy = CommitPolicy(plan, lazyDelayMilliseconds: 5000, at: now)
    }

    /// No tokens are left, and the next is as far away as it can be.
    static func busy(_ plan: CommitPlan) -> Office {
        var office = Office(plan)
        var prompt = CommitPolicy.Demand()
        prompt.message = office.now
        for _ in 0..<plan.burst { office.policy.committed(prompt, at: office.now) }
        return office
    }

    mutating func comes(_ urgency: Urgency, bytes: Int = 300) {
        switch urgency {
        case .lazy: demand.lazy = demand.lazy ?? now
        case .elidable: demand.lingering = demand.lingering ?? now
        case .message: demand.message = demand.message ?? now
        case .relaxed: demand.relaxed = demand.relaxed ?? now
        case .handshake: demand.handshake = demand.handshake ?? now
        case .control: demand.control = demand.control ?? now
        }
        demand.beginsBeforeLingering = demand.lingering == nil
        if urgency != .elidable { demand.bytes += bytes }
        demand.memoryBytes += bytes
        commitIfDue()
    }

    private mutating func commitIfDue() {
        guard policy.due(demand, at: now) != .nothing else { return }
        policy.committed(demand, at: now)
        demand = CommitPolicy.Demand()
        commits.append(now.milliseconds - 1_000_000)
    }

    /// Sleeps until the deadlines in between, and no longer: what is due must be due exactly then.
    mutating func passes(_ milliseconds: UInt64) {
        let target = now.advanced(byMilliseconds: milliseconds)
        while let next = policy.nextDeadline(demand), next <= target {
            if next > now {
                now = Instant(milliseconds: next.milliseconds - 1)
                #expect(policy.due(demand, at: now) == .nothing, "not a millisecond too late")
            }
            now = max(now, next)
            let before = commits.count
            commitIfDue()
            #expect(commits.count == before + 1, "and not too early")
            guard commits.count > before else { break }
        }
        now = target
    }

    mutating func everyMilliseconds(_ interval: UInt64, for duration: UInt64, _ urgency: Urgency) {
        for _ in 0..<duration / interval {
            comes(urgency)
            passes(interval)
        }
    }
}

@Suite("When a batch is due (commit windows and tokens)")
struct CommitPolicyTests {
    @Test(
        "a lone sensor's message is committed at once, whatever the durability",
        arguments: [CommitPlan.latency, .balanced, .flashSaver])
    func loneSensor(plan: CommitPlan) {
        var office = Office(plan)
        for _ in 0..<20 {
            let came = office.now
            office.comes(.message)
            #expect(office.commits.last == came.milliseconds - 1_000_000)
            office.passes(5000)
        }
        #expect(office.commits.count == 20)
    }

    @Test(
        "100 messages a second are committed at the rate of the tokens once the burst is over",
        arguments: [(CommitPlan.latency, 50), (.balanced, 4), (.flashSaver, 1)])
    func sustained(plan: CommitPlan, perSecond: Int) {
        var office = Office.busy(plan)
        office.everyMilliseconds(10, for: 60_000, .message)
        #expect(abs(office.commits.count - 60 * perSecond) <= 2 + 6 * perSecond)
    }

    @Test("a burst goes at once as far as there are tokens, and they refill")
    func refill() {
        var office = Office(.balanced)
        office.everyMilliseconds(1, for: 60, .message)
        #expect(office.commits.prefix(41).count == 40, "40 at once, and then none for a while")
        office.passes(10_000 + 500)
        let before = office.commits.count
        office.everyMilliseconds(1, for: 60, .message)
        #expect((39...41).contains(office.commits.count - before))
    }

    @Test("without a token what somebody waits for goes with the next, at the latest after its window")
    func window() {
        var office = Office.busy(.balanced)
        office.comes(.message)
        #expect(office.policy.nextDeadline(office.demand) == office.now.advanced(byMilliseconds: 250))
        // One that could not wait took the next token: the window is what bounds the second.
        office.passes(250)
        office.comes(.message)
        office.passes(250)
        #expect(office.commits == [250, 500])
    }

    @Test("A2-A7: without a token a QoS 2 exchange waits 100 ms at most, a shorter window less")
    func handshake() {
        var office = Office.busy(.balanced)
        office.comes(.message)
        office.passes(20)
        office.comes(.handshake)
        office.passes(1000)
        #expect(office.commits == [120], "and the message that waits goes with it")
        var quick = Office.busy(CommitPlan(windowMilliseconds: 20, commitsPerSecond: 1, burst: 1))
        quick.comes(.handshake)
        quick.passes(1000)
        #expect(quick.commits == [20])
    }

    @Test(
        "who has time waits for a second, or goes with whoever comes before, and begins no commit by a token")
    func relaxed() {
        var office = Office(.balanced)
        office.comes(.relaxed)
        office.passes(2000)
        #expect(office.commits == [1000])
        office.comes(.relaxed)
        office.passes(300)
        office.comes(.message)
        #expect(office.commits == [1000, 2300], "a token is left for the message")
        var busy = Office.busy(.balanced)
        busy.comes(.relaxed)
        busy.passes(1500)
        busy.comes(.message)
        busy.passes(100)
        #expect(busy.commits == [1000, 1500])
        var saver = Office.busy(CommitPlan(windowMilliseconds: 3000, commitsPerSecond: 1, burst: 1))
        saver.comes(.relaxed)
        saver.passes(5000)
        #expect(saver.commits == [3000], "no sooner than the window of all")
    }

    @Test("A9 A10: without a token a connection or a subscription waits 20 ms at most")
    func control() {
        var office = Office.busy(.flashSaver)
        office.comes(.handshake)
        office.passes(30)
        office.comes(.control)
        office.passes(1000)
        #expect(office.commits == [50])
    }

    @Test("A8: what nobody waits for waits five seconds, and takes no token")
    func lazy() {
        var office = Office(CommitPlan(windowMilliseconds: 250, commitsPerSecond: 1, burst: 1))
        office.comes(.lazy)
        office.passes(5000)
        #expect(office.commits == [5000])
        office.comes(.message)
        #expect(office.commits == [5000, 5000], "the token is still there")
    }

    @Test("64 KiB go at once without a token, and take none")
    func bytes() {
        var office = Office.busy(.balanced)
        for _ in 0..<64 { office.comes(.message, bytes: 1023) }
        #expect(office.commits == [])
        office.comes(.message, bytes: 64)
        #expect(office.commits == [0])
        office.passes(250)
        office.comes(.message)
        #expect(office.commits == [0, 250], "the token of these 250 ms is still there")
    }

    @Test("E4: what lingers goes at the window's end, however many tokens there are, or when memory runs out")
    func lingering() {
        var office = Office(.balanced)
        office.comes(.elidable)
        office.passes(10)
        office.comes(.elidable, bytes: 500 << 10)
        #expect(office.commits == [], "bytes that may never be written do not count towards a full batch")
        office.passes(1000)
        #expect(office.commits == [250])
        office.comes(.elidable, bytes: 1 << 20)
        #expect(office.commits.count == 2)
    }

    @Test("A8: a commit for which nobody waits stops before the first message that may be elided")
    func lazyBeforeLingering() {
        var plan = CommitPlan.balanced
        plan.windowMilliseconds = 10_000
        let policy = CommitPolicy(plan, lazyDelayMilliseconds: 5000, at: Instant(milliseconds: 0))
        var demand = CommitPolicy.Demand()
        demand.lazy = Instant(milliseconds: 0)
        demand.lingering = Instant(milliseconds: 1)
        demand.beginsBeforeLingering = true
        #expect(policy.due(demand, at: Instant(milliseconds: 5000)) == .beforeLingering)
        demand.beginsBeforeLingering = false
        #expect(policy.due(demand, at: Instant(milliseconds: 5000)) == .nothing)
        #expect(policy.nextDeadline(demand) == Instant(milliseconds: 10_001))
    }

    @Test(
        "widening multiplies the window and divides the tokens, and never delays a handshake beyond its bound"
    )
    func widening() {
        var office = Office.busy(.balanced)
        office.policy.widen(4, at: office.now)
        office.comes(.message)
        #expect(office.policy.nextDeadline(office.demand) == office.now.advanced(byMilliseconds: 1000))
        office.comes(.handshake)
        #expect(office.policy.nextDeadline(office.demand) == office.now.advanced(byMilliseconds: 100))
        office.passes(60_000)
        office = Office.busy(.balanced)
        office.policy.widen(4, at: office.now)
        office.everyMilliseconds(10, for: 60_000, .message)
        #expect((50...70).contains(office.commits.count))
    }

    @Test(
        "E6: when less than half of what lingers is elided, nothing lingers for a while, then it is tried again"
    )
    func adaptivity() {
        var policy = CommitPolicy(.balanced, lazyDelayMilliseconds: 5000, at: Instant(milliseconds: 0))
        func at(_ seconds: UInt64) -> Instant { Instant(milliseconds: seconds * 1000) }
        policy.lingered(5, wereElided: true, at: at(1))
        policy.lingered(5, wereElided: false, at: at(1))
        #expect(policy.lingers(at: at(1)), "half is enough")
        policy.lingered(1, wereElided: false, at: at(2))
        #expect(!policy.lingers(at: at(2)))
        #expect(policy.lingers(at: at(3)))
        policy.lingered(7, wereElided: false, at: at(63))
        #expect(policy.lingers(at: at(63)), "too few to tell")
        policy.lingered(1, wereElided: false, at: at(63))
        #expect(!policy.lingers(at: at(63)))
        // What was long ago counts no more.
        policy.lingered(100, wereElided: true, at: at(130))
        policy.lingered(60, wereElided: false, at: at(200))
        #expect(!policy.lingers(at: at(200)))
    }

    @Test("E6: a stall right after a start costs a second of lingering, not a minute")
    func stallAtStart() {
        var policy = CommitPolicy(.balanced, lazyDelayMilliseconds: 5000, at: Instant(milliseconds: 0))
        policy.lingered(30, wereElided: false, at: Instant(milliseconds: 500))
        #expect(!policy.lingers(at: Instant(milliseconds: 1499)))
        #expect(policy.lingers(at: Instant(milliseconds: 1500)))
        // The link is quick again: the next stall, an hour later, is no worse.
        policy.lingered(30, wereElided: true, at: Instant(milliseconds: 1600))
        policy.lingered(31, wereElided: false, at: Instant(milliseconds: 3_600_000))
        #expect(policy.lingers(at: Instant(milliseconds: 3_601_000)))
    }

    @Test(
        "E6: where receivers are far for good, lingering is tried ever more rarely, and at last once a minute"
    )
    func farForGood() {
        var policy = CommitPolicy(.balanced, lazyDelayMilliseconds: 5000, at: Instant(milliseconds: 0))
        var rests: [UInt64] = []
        var now: UInt64 = 0
        for _ in 0..<9 {
            let began = now
            policy.lingered(25, wereElided: false, at: Instant(milliseconds: now))
            while !policy.lingers(at: Instant(milliseconds: now)) { now += 250 }
            rests.append((now - began) / 1000)
        }
        #expect(rests == [1, 2, 4, 8, 16, 32, 60, 60, 60])
    }

    @Test("a window of nothing lets nothing linger")
    func noWindow() {
        let plan = CommitPlan(windowMilliseconds: 0, commitsPerSecond: 1, burst: 1)
        #expect(
            !CommitPolicy(plan, lazyDelayMilliseconds: 1, at: .init(milliseconds: 0)).lingers(
                at: .init(milliseconds: 9)))
    }
}
