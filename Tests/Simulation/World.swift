import GatewayCore
import Journal
import MQTT
import Uplink

/// Everything there is, from one seed: the gateway's machine with its disk and clocks, the connections, and those who
/// are connected. One thing happens after the other, in simulated microseconds; the same seed gives the same world in
/// any process.
package final class World {
    enum Event {
        case arrives(link: Int, toGateway: Bool, count: Int)
        /// That side learns that the connection is over.
        case ends(link: Int, toGateway: Bool)
        /// The send buffer may have filled up or drained.
        case buffer(link: Int)
        case disk(life: Int)
        case deadline(life: Int)
        case second(life: Int)
        case dials(UplinkIndex, life: Int)
        case wakes(peer: Int)
        case connects(peer: Int)
        case fault(FaultKind)
        case fails(life: Int)
        case boots(life: Int)
        case looks
    }

    let scenario: Scenario
    var now: UInt64 = 0
    var events = EventHeap<Event>()
    var trace: Trace
    var statistics = Statistics()
    var violations: [String] = []

    // Whoever is there.
    var cast: Cast
    var linkOf: [Int?]
    var isConnecting: [Bool]
    var wakeAt: [UInt64?]

    // The gateway's machine.
    var host: SimulatedHost?
    let plan: HostPlan
    var disk: SimulatedDisk
    var clocks: Clocks
    var life = 0
    var asked: [DiskOperation] = []
    var asksAt = 0
    var isDiskBusy = false
    /// A merged file has its name, and what it stands for is still there.
    var hasMerged = false
    /// While what ends in the middle of an operation is to be the process and not the power: the steps that were left
    /// before it was aimed at.
    var stepsUnaimed: Int?
    var diskIdleAt: UInt64 = 0
    var deadlineAt: UInt64?
    var asleepUntil: UInt64 = 0
    var cloudAwayUntil: UInt64 = 0

    var links: [SimulatedLink] = []
    var openLinks: [Int] = []
    var linkOfConnection: [UInt64: Int] = [:]
    var linkOfUplink: [Int: Int] = [:]
    var nextConnection: UInt64 = 1
    var road: SimulatedLink.Road

    // Chance, one for each concern.
    var faultDice: [FaultKind: Dice] = [:]
    var linkDice: Dice
    var diskDice: Dice
    var hostDice: Dice
    var bootDice: Dice
    var aimDice: Dice

    var isSettling = false
    var settlingSince: UInt64 = 0
    var movedAt: UInt64 = 0
    var isDone = false
    let violationsMax = 20

    package init(
        _ scenario: Scenario, isReadable: Bool = false, linesMax: Int? = nil, omission: DiskOmission? = nil
    ) {
        self.scenario = scenario
        trace = Trace(isReadable: isReadable, linesMax: linesMax)
        var dice = Dice(scenario.seed)
        cast = Cast(scenario, dice: dice.fork())
        for kind in FaultKind.allCases { faultDice[kind] = dice.fork() }
        linkDice = dice.fork()
        diskDice = dice.fork()
        hostDice = dice.fork()
        bootDice = dice.fork()
        road = SimulatedLink.Road(
            delay: [500, 5_000, 60_000][linkDice.below(3)], jitter: [100, 20_000][linkDice.below(2)],
            bytesPerSecond: [20_000, 1_000_000][linkDice.below(2)])
        if scenario.family == .elision { road = SimulatedLink.Road() }
        plan = HostPlan(
            gateway: scenario.gatewayPlan(), journal: scenario.journalPlan(), uplinks: cast.uplinkPlans)
        guard let store = StoreID((1...16).map { UInt8($0) }) else { preconditionFailure("16 bytes") }
        disk = SimulatedDisk(formatted: store, dice: dice.fork())
        aimDice = Dice(scenario.seed ^ 0xA1_0F_B1_0D)
        disk.capacity = scenario.capacity
        disk.omission = omission
        clocks = Clocks(drift: Int64(dice.below(201)) - 100)
        linkOf = cast.peers.indices.map { _ in nil }
        isConnecting = cast.peers.indices.map { _ in false }
        wakeAt = cast.peers.indices.map { _ in nil }
    }

    func isAbsent(_ peer: Int) -> Bool {
        scenario.absent.contains(peer) || scenario.notInvited.contains(peer)
    }

    // MARK: The run

    package func run() -> Outcome {
        clocks.boot(at: 0, wall: Clocks.epoch, trustedAfter: 0)
        boot()
        for i in cast.peers.indices where !isAbsent(i) { pump(i) }
        for kind in scenario.faults { plan(kind) }
        cutAtSomeStep()
        events.add(.looks, at: 1_000_000)
        while !isDone, violations.isEmpty, let (time, event) = events.next() {
            now = max(now, time)
            statistics.events += 1
            trace.note(now)
            handle(event)
            cast.takeViolations().forEach(violate)
        }
        if violations.isEmpty { finish() }
        statistics.microseconds = now
        statistics.diskSteps = disk.steps
        statistics.bytesWritten = disk.bytesWritten
        statistics.strikes = disk.strikes
        countLife()
        cast.count(into: &statistics)
        return Outcome(
            digest: trace.digest, statistics: statistics, violations: violations, lines: trace.lines)
    }

    func violate(_ words: String) {
        guard violations.count < violationsMax else { return }
        trace.say("VIOLATION \(words)", at: now)
        violations.append(words)
    }

    func handle(_ event: Event) {
        // Awake again, it reads what waits before it looks at its deadlines.
        if asleepUntil > now, event.isOfGateway {
            return events.add(event, at: asleepUntil + (event.isOfClock ? 1_000 : 0))
        }
        switch event {
        case .arrives(let link, let toGateway, let count):
            toGateway ? arriveAtGateway(link, count) : arriveAtPeer(link, count)
        case .ends(let link, let toGateway): toGateway ? endAtGateway(link) : endAtPeer(link)
        case .buffer(let link): tellWritability(link)
        case .disk(let life): if life == self.life { diskWorks() }
        case .deadline(let life):
            guard life == self.life, deadlineAt.map({ $0 <= now }) == true else { return }
            deadlineAt = nil
            tell { $0.deadline() }
        case .second(let life):
            guard life == self.life else { return }
            let reading = clocks.wall(at: now)
            tell { $0.second(reading) }
            events.add(event, at: now + 1_000_000)
        case .dials(let index, let life): if life == self.life { dial(index) }
        case .wakes(let peer):
            guard let at = wakeAt[peer], at <= now else { return }
            wakeAt[peer] = nil
            if let next = cast.peers[peer].nextWake, next <= now { cast.peers[peer].wake(at: now) }
            pump(peer)
        case .connects(let peer): connect(peer)
        case .fault(let kind): strike(kind)
        case .fails(let life): if life == self.life, !isSettling { losePower(.powerCut) }
        case .boots(let life): if life == self.life { boot() }
        case .looks: look()
        }
    }

    // MARK: The gateway

    /// Tells the gateway something, and does what it asks for.
    func tell(_ body: (SimulatedHost) -> Void) {
        guard let host else { return }
        host.at(clocks, now) { body(host) }
        host.violations.forEach(violate)
        for action in host.takeActions() { carryOut(action) }
        if host.isAllDurable { cast.allIsDurable() }
        if let next = host.nextDeadline {
            let wait = clocks.trueMicroseconds(for: next.milliseconds(since: host.clock))
            let at = now + min(wait, 60_000_000)
            if deadlineAt.map({ at < $0 }) ?? true {
                deadlineAt = at
                events.add(.deadline(life: life), at: at)
            }
        }
    }

    func carryOut(_ action: SimulatedHost.Action) {
        switch action {
        case .send(let connection, let bytes):
            guard let link = linkOfConnection[connection] else { return }
            send(link, toGateway: false, bytes)
        case .close(let connection):
            guard let link = linkOfConnection[connection] else { return }
            closeAtGateway(link)
            events.add(.ends(link: link, toGateway: true), at: now + 4_000_000)
        case .cut(let connection):
            guard let link = linkOfConnection[connection] else { return }
            cut(link, gatewayLearnsAfter: 0, peerLearnsAfter: 1000)
        case .disk(let operations):
            asked += operations
            startDisk()
        case .dial(let index, let milliseconds):
            events.add(.dials(index, life: life), at: now + milliseconds * 1000 + 1_000)
        case .sendUp(let index, let bytes):
            guard let link = linkOfUplink[index.number] else { return }
            send(link, toGateway: false, bytes)
        case .hangUp(let index):
            guard let link = linkOfUplink.removeValue(forKey: index.number) else { return }
            links[link].isOpenAtGateway = false
            links[link].toGateway.isOver = true
            closeAtGateway(link)
        case .observed(let observation):
            if case .pressure(let isPressing) = observation { cast.presses(isPressing, at: now) }
            trace.say("gateway: \(observation)", at: now)
        case .said(let words): trace.say("    \(words)", at: now)
        }
    }

    // MARK: The disk

    func startDisk() {
        guard !isDiskBusy, asksAt < asked.count else { return }
        isDiskBusy = true
        let latency = UInt64(200 + diskDice.below(diskDice.below(10) == 0 ? 60_000 : 6_000))
        diskIdleAt = max(diskIdleAt, now) + latency
        events.add(.disk(life: life), at: diskIdleAt)
    }

    func diskWorks() {
        guard asksAt < asked.count else { return }
        let operation = asked[asksAt]
        asksAt += 1
        if asksAt == asked.count {
            asked.removeAll(keepingCapacity: true)
            asksAt = 0
        }
        isDiskBusy = false
        trace.note(UInt64(disk.steps))
        trace.say("disk: \(operation.action.words)", at: now)
        switch operation.action {
        case .write(_, _, let bytes):
            statistics.batches += 1
            statistics.batchBytes += bytes.count
        case .publish:
            statistics.merged += 1
            hasMerged = true
        case .reuseSegment: statistics.reused += 1
        case .writeCheckpoint: statistics.checkpoints += 1
        default: break
        }
        aim(at: operation.action)
        if let end = disk.fault?.endsAt, now >= end { disk.fault = nil }
        guard let completion = disk.perform(operation) else {
            return stepsUnaimed == nil ? losePower(.stepCut) : kill()
        }
        if let stepsUnaimed { disk.stepsLeft = stepsUnaimed }
        stepsUnaimed = nil
        if !disk.abused.isEmpty { violate("written to after its sync failed: \(disk.abused)") }
        if case .failed(let number) = completion.outcome { trace.say("disk: error \(number)", at: now) }
        startDisk()
        tell { $0.completed(completion) }
    }

    /// What is rare is cut off as often as what is not: in the middle of it, or before much else happened.
    func aim(at action: DiskOperation.Action) {
        guard scenario.has(.stepCut), !isSettling else { return }
        let oneIn: Int
        switch action {
        case .reuseSegment, .publish, .retire: oneIn = 3
        // Whoever deletes what was merged trusts the merged file.
        case .delete: oneIn = hasMerged ? 3 : 12
        case .createSegment, .writeCheckpoint: oneIn = 12
        case .write, .writeFooter, .read, .writePart, .makeReserve, .measureSpace: return
        }
        if case .delete = action { hasMerged = false }
        if bootDice.below(oneIn) == 0 { disk.stepsLeft = min(disk.stepsLeft, bootDice.below(10)) }
        if scenario.has(.kill), aimDice.below(2 * oneIn) == 0 {
            // A start finds names that are in the cache alone only behind a kill just before their sync.
            let steps = aimDice.coin() ? action.stepsToNames : aimDice.below(6)
            guard steps < disk.stepsLeft else { return }
            stepsUnaimed = disk.stepsLeft
            disk.stepsLeft = steps
        }
    }

    // MARK: Lives

    /// The power fails.
    func losePower(_ kind: FaultKind) {
        guard host != nil else { return }
        statistics.powerCuts += 1
        statistics.faults[kind, default: 0] += 1
        trace.say("THE POWER FAILS", at: now)
        // What the disk was at is done in part.
        if !disk.isPowerless, isDiskBusy, asksAt < asked.count, bootDice.coin() {
            disk.stepsLeft = bootDice.below(6)
            _ = disk.perform(asked[asksAt])
        }
        endLife(isKilled: false)
    }

    func kill() {
        guard host != nil else { return }
        statistics.kills += 1
        trace.say("the process is killed", at: now)
        // What it was at is done in part, and is in the cache.
        if isDiskBusy, asksAt < asked.count, bootDice.coin() {
            disk.stepsLeft = bootDice.below(6)
            _ = disk.perform(asked[asksAt])
        }
        endLife(isKilled: true)
    }

    func countLife() {
        guard let host else { return }
        statistics.records += host.appendedRecords
        statistics.elided += host.elided
    }

    func endLife(isKilled: Bool) {
        countLife()
        cast.powerFailed(at: now)
        cast.presses(false, at: now)
        host = nil
        life += 1
        asked = []
        asksAt = 0
        isDiskBusy = false
        deadlineAt = nil
        asleepUntil = 0
        stepsUnaimed = nil
        disk.fault = nil
        linkOfConnection = [:]
        linkOfUplink = [:]
        for link in openLinks {
            links[link].isOpenAtGateway = false
            links[link].toGateway.isOver = true
            if !isKilled { links[link].toPeer.cut(&linkDice) }
            links[link].toPeer.isOver = true
            // Killed, the machine says goodbye for the process; without power nobody does.
            let silence = isKilled ? 1_000 : UInt64([100_000, 1_000_000, 20_000_000][linkDice.below(3)])
            events.add(
                .ends(link: link, toGateway: false),
                at: max(now, isKilled ? links[link].toPeer.notBefore : now) + silence / 2
                    + UInt64(linkDice.below(Int(silence))))
        }
        if isKilled {
            disk.processEnded()
            events.add(.boots(life: life), at: now + 100_000 + UInt64(bootDice.below(1_000_000)))
        } else {
            comeBack()
        }
    }

    /// The power comes back after a while.
    func comeBack() {
        harm(
            disk.losePower(harmsNeighbours: scenario.has(.neighbour) && !isSettling && bootDice.below(3) == 0)
        )
        if scenario.has(.rot), !isSettling, bootDice.below(12) == 0, let damage = disk.rots() {
            statistics.faults[.rot, default: 0] += 1
            harm([damage])
        }
        let off = UInt64(
            1_000
                + bootDice.below(
                    [500_000, 5_000_000, 120_000_000][[0, 0, 0, 0, 0, 0, 1, 1, 1, 2][bootDice.below(10)]]))
        let back = now + off
        if scenario.has(.noClock), bootDice.coin() {
            statistics.faults[.noClock, default: 0] += 1
            clocks.boot(
                at: back, wall: bootDice.coin() ? 0 : Clocks.epoch,
                trustedAfter: UInt64(bootDice.below(100_000_000)))
        } else {
            clocks.boot(
                at: back, wall: Clocks.epoch + Int64(back / 1000),
                trustedAfter: UInt64(bootDice.below(3_000_000)))
        }
        events.add(.boots(life: life), at: back)
    }

    func harm(_ damage: [DiskDamage]) {
        guard !damage.isEmpty else { return }
        for place in damage {
            statistics.damage += 1
            trace.say("damaged: \(place.file) \(place.range)", at: now)
        }
        let toll = Toll(of: damage, on: disk, isFirst: !cast.isShort)
        trace.say("    which costs \(toll)", at: now)
        toll.violations.forEach(violate)
        cast.pays(toll)
    }

    /// The gateway starts on what the disk has; or the power fails meanwhile.
    func boot() {
        let isCut = scenario.has(.recoveryCut) && !isSettling && life > 0 && bootDice.below(4) == 0
        if isCut { disk.stepsLeft = bootDice.below(8) }
        guard disk.beginStore() else { return loseRecovery() }
        // Segments are short here.
        var state = DurableState(blockBits: scenario.blockBits, limits: plan.gateway.limits)
        let recovered: RecoveredLog?
        let hadFault = disk.fault != nil
        do {
            recovered = try Recovery.recover(&disk) {
                state.apply($0, at: $1)
            } sealed: {
                state.seal($0, queues: $1)
            }
        } catch {
            recovered = nil
            // What recovery did to the disk before it gave up is not told; nothing of that is missed.
            guard isCut || hadFault, case RecoveryError.unreadable = error else {
                return violate("cannot start: \(error)")
            }
            if !isCut {
                // Whoever supervises the process starts it again.
                disk.fault = nil
                return events.add(.boots(life: life), at: now + 1_000_000)
            }
        }
        guard var recovered, !disk.isPowerless else { return loseRecovery() }
        check(recovered, state)
        let untidy = recovered.report.unfinished + recovered.report.setAside
        if !untidy.isEmpty, scenario.has(.recoveryCut), !isSettling, aimDice.coin() {
            disk.stepsLeft = min(disk.stepsLeft, aimDice.below(untidy.count + 1))
        }
        let isTidy =
            disk.removeForTidiness(untidy)
            && (!recovered.report.formatIsDamaged || disk.rewriteFormat(recovered.store))
        guard isTidy else { return loseRecovery() }
        // The rest of the steps to the cut are for the first ones of this life.
        recovered.recycles = scenario.recycles
        recovered.space = disk.space
        trace.note(recovered.last.number)
        trace.say("the gateway starts behind record \(recovered.last.number)", at: now)
        statistics.lives += 1
        cast.runs(since: now)
        let host = SimulatedHost(
            plan: plan, recovered: recovered, state: state, clocks: clocks, trueTime: now,
            dice: hostDice.fork())
        host.isTalkative = trace.isReadable
        self.host = host
        if !isCut { cutAtSomeStep() }
        events.add(.second(life: life), at: now + 1_000_000)
        tell { $0.start() }
    }

    func loseRecovery() {
        statistics.cutsOfRecovery += 1
        statistics.faults[.recoveryCut, default: 0] += 1
        trace.say("THE POWER FAILS during recovery", at: now)
        life += 1
        comeBack()
    }

    func cutAtSomeStep() {
        disk.stepsLeft = .max
        guard scenario.has(.stepCut), !isSettling, bootDice.coin() else { return }
        disk.stepsLeft = bootDice.below([20, 100, 1000][bootDice.below(3)])
    }

    // MARK: The end

    /// Once a second.
    func look() {
        events.add(.looks, at: now + 1_000_000)
        if let host, host.isClosed || host.cannotClose {
            // It ended in good order; another one is started.
            endLife(isKilled: true)
        }
        checkMemory()
        if !isSettling {
            let isOver =
                now >= UInt64(scenario.seconds) * 1_000_000 || statistics.allPowerCuts >= scenario.cutsMax
            if isOver { settle() }
            return
        }
        if isQuiet { isDone = true } else if now - settlingSince > Self.quietWithin { tellUnrest() }
    }

    /// From now on all is well.
    func settle() {
        trace.say("from now on all is well", at: now)
        isSettling = true
        settlingSince = now
        movedAt = now
        disk.fault = nil
        disk.stepsLeft = .max
        cloudAwayUntil = 0
        for i in cast.peers.indices where !isAbsent(i) {
            cast.peers[i].settles()
            pump(i)
        }
    }

    /// Microseconds in which everything that was begun must come to its end once nothing goes wrong any more.
    static let quietWithin: UInt64 = 1_200_000_000

    var isQuiet: Bool {
        guard let host, host.isAllDurable, !isDiskBusy, now - settlingSince > 3_000_000 else { return false }
        for i in cast.peers.indices where !isAbsent(i) && !cast.peers[i].isAtRest { return false }
        let quiet = now - movedAt
        return quiet > 40_000_000 || (quiet > 5_000_000 && cast.owesNothing(host.gateway.state))
    }

    func tellUnrest() {
        isDone = true
        // What was damaged may be what somebody still waits for.
        guard !cast.isBeyondJudgement else { return }
        for name in disk.fileNames() { trace.say("    \(name): \(disk.content(name).count) bytes", at: now) }
        trace.say("    \(disk.usedBytes) of \(disk.capacity ?? 0) bytes", at: now)
        if let host, trace.isReadable { tellWhatIsOwed(host.gateway.state) }
        for i in cast.peers.indices where !isAbsent(i) && !cast.peers[i].isAtRest {
            trace.say("\(cast.name(i)) is \(cast.peers[i])", at: now)
            violate(
                "\(cast.name(i)) has not come to rest \(Self.quietWithin / 1_000_000) s after the last fault")
        }
        if violations.isEmpty { violate("not quiet \(Self.quietWithin / 1_000_000) s after the last fault") }
    }

    func finish() {
        checkFlash()
        // Killed once more, it must find everything as it was.
        kill()
        boot()
        guard violations.isEmpty, let host else { return violate("the gateway is not there at the end") }
        cast.finish(host.gateway.state, deadLetters: deadLetters(host.gateway.state), at: now).forEach(
            violate)
    }
}

extension World.Event {
    /// What a machine that sleeps does not notice.
    fileprivate var isOfGateway: Bool {
        switch self {
        case .arrives(_, let toGateway, _), .ends(_, let toGateway): toGateway
        case .buffer, .disk, .deadline, .second, .dials: true
        case .wakes, .connects, .fault, .fails, .boots, .looks: false
        }
    }

    fileprivate var isOfClock: Bool {
        switch self {
        case .deadline, .second: true
        case .arrives, .ends, .buffer, .disk, .dials, .wakes, .connects, .fault, .fails, .boots, .looks: false
        }
    }
}

extension DiskOperation.Action {
    /// How many steps the disk takes until names have changed and their directory is not synced.
    fileprivate var stepsToNames: Int {
        switch self {
        case .publish: 1
        case .retire(let segments): segments.count
        case .delete(let files): files.count
        case .createSegment, .reuseSegment: 3
        case .writeCheckpoint, .makeReserve: 4
        case .write, .writeFooter, .read, .writePart, .measureSpace: 0
        }
    }
}

extension Dice {
    /// So that a copy that was drawn from gives other numbers than the next.
    mutating func stir() { _ = next() }
}
