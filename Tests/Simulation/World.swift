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
    private(set) var now: UInt64 = 0
    private var events = EventHeap<Event>()
    var trace: Trace
    var statistics = Statistics()
    private(set) var violations: [String] = []

    // Whoever is there.
    var cast: Cast
    private var linkOf: [Int?]
    private var isConnecting: [Bool]
    private var wakeAt: [UInt64?]

    // The gateway's machine.
    private(set) var host: SimulatedHost?
    let plan: HostPlan
    var disk: SimulatedDisk
    var clocks: Clocks
    private(set) var life = 0
    private var asked: [DiskOperation] = []
    private var asksAt = 0
    private var isDiskBusy = false
    private var diskIdleAt: UInt64 = 0
    private var deadlineAt: UInt64?
    private var asleepUntil: UInt64 = 0
    private var cloudAwayUntil: UInt64 = 0

    var links: [SimulatedLink] = []
    private var openLinks: [Int] = []
    private var linkOfConnection: [UInt64: Int] = [:]
    private var linkOfUplink: [Int: Int] = [:]
    private var nextConnection: UInt64 = 1
    private var road: SimulatedLink.Road

    // Chance, one for each concern.
    var faultDice: [FaultKind: Dice] = [:]
    private var linkDice: Dice
    private var diskDice: Dice
    private var hostDice: Dice
    var bootDice: Dice

    private var isSettling = false
    private var settlingSince: UInt64 = 0
    private var movedAt: UInt64 = 0
    private var isDone = false
    private let violationsMax = 20

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
        disk.capacity = scenario.capacity
        disk.omission = omission
        clocks = Clocks(drift: Int64(dice.below(201)) - 100)
        linkOf = cast.peers.indices.map { _ in nil }
        isConnecting = cast.peers.indices.map { _ in false }
        wakeAt = cast.peers.indices.map { _ in nil }
    }

    private func isAbsent(_ peer: Int) -> Bool {
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

    private func handle(_ event: Event) {
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
    private func tell(_ body: (SimulatedHost) -> Void) {
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

    private func carryOut(_ action: SimulatedHost.Action) {
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
            trace.say("gateway: \(observation)", at: now)
        case .said(let words): trace.say("    \(words)", at: now)
        }
    }

    // MARK: The disk

    private func startDisk() {
        guard !isDiskBusy, asksAt < asked.count else { return }
        isDiskBusy = true
        let latency = UInt64(200 + diskDice.below(diskDice.below(10) == 0 ? 60_000 : 6_000))
        diskIdleAt = max(diskIdleAt, now) + latency
        events.add(.disk(life: life), at: diskIdleAt)
    }

    private func diskWorks() {
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
        case .publish: statistics.merged += 1
        case .reuseSegment: statistics.reused += 1
        case .writeCheckpoint: statistics.checkpoints += 1
        default: break
        }
        aim(at: operation.action)
        guard let completion = disk.perform(operation) else { return losePower(.stepCut) }
        if !disk.abused.isEmpty { violate("written to after its sync failed: \(disk.abused)") }
        if case .failed(let number) = completion.outcome { trace.say("disk: error \(number)", at: now) }
        startDisk()
        tell { $0.completed(completion) }
    }

    /// What is rare is cut off as often as what is not: in the middle of it, or before much else happened.
    private func aim(at action: DiskOperation.Action) {
        guard scenario.has(.stepCut), !isSettling else { return }
        let oneIn: Int
        switch action {
        case .reuseSegment, .publish, .retire: oneIn = 3
        case .createSegment, .writeCheckpoint, .delete: oneIn = 12
        case .write, .writeFooter, .read, .writePart, .makeReserve, .measureSpace: return
        }
        if bootDice.below(oneIn) == 0 { disk.stepsLeft = min(disk.stepsLeft, bootDice.below(10)) }
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

    private func countLife() {
        guard let host else { return }
        statistics.records += host.appendedRecords
        statistics.elided += host.elided
    }

    private func endLife(isKilled: Bool) {
        countLife()
        cast.powerFailed(at: now)
        host = nil
        life += 1
        asked = []
        asksAt = 0
        isDiskBusy = false
        deadlineAt = nil
        asleepUntil = 0
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
    private func comeBack() {
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

    private func harm(_ damage: [DiskDamage]) {
        for place in damage {
            statistics.damage += 1
            trace.say("damaged: \(place.file) \(place.range)", at: now)
            cast.damaged(place)
        }
    }

    /// The gateway starts on what the disk has; or the power fails meanwhile.
    private func boot() {
        let isCut = scenario.has(.recoveryCut) && !isSettling && life > 0 && bootDice.below(4) == 0
        if isCut { disk.stepsLeft = bootDice.below(8) }
        // Segments are short here.
        var state = DurableState(blockBits: scenario.blockBits)
        state.queueEntriesMax = plan.gateway.limits.queueEntriesMax
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
        let isTidy =
            disk.removeForTidiness(recovered.report.unfinished + recovered.report.setAside)
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

    private func loseRecovery() {
        statistics.cutsOfRecovery += 1
        statistics.faults[.recoveryCut, default: 0] += 1
        trace.say("THE POWER FAILS during recovery", at: now)
        life += 1
        comeBack()
    }

    private func cutAtSomeStep() {
        disk.stepsLeft = .max
        guard scenario.has(.stepCut), !isSettling, bootDice.coin() else { return }
        disk.stepsLeft = bootDice.below([20, 100, 1000][bootDice.below(3)])
    }

    // MARK: Connections

    private func connect(_ peer: Int) {
        isConnecting[peer] = false
        guard linkOf[peer] == nil, cast.peers[peer].wantsLink, !cast.isCloud(peer) else { return }
        guard let host, host.isServing, asleepUntil <= now else {
            isConnecting[peer] = true
            return events.add(.connects(peer: peer), at: now + 200_000 + UInt64(linkDice.below(800_000)))
        }
        let connection = nextConnection
        nextConnection += 1
        let link = open(peer, connection)
        linkOfConnection[connection] = link
        tell { $0.opened(connection) }
        cast.peers[peer].linkOpened(at: now)
        pump(peer)
    }

    private func open(_ peer: Int, _ connection: UInt64?) -> Int {
        statistics.connections += 1
        links.append(SimulatedLink(peer: peer, life: life, connection: connection, road: road))
        openLinks.append(links.count - 1)
        linkOf[peer] = links.count - 1
        trace.say("\(cast.name(peer)) is connected", at: now)
        return links.count - 1
    }

    private func dial(_ index: UplinkIndex) {
        let peer = cast.cloud(index)
        guard now >= cloudAwayUntil, !isAbsent(peer), cast.peers[peer].wantsLink || linkOf[peer] != nil
        else { return tell { $0.uplinkFailed(index) } }
        if let old = linkOf[peer] {
            // The cloud has not noticed yet that the last one is gone.
            links[old].isOpenAtPeer = false
            linkOf[peer] = nil
            cast.peers[peer].linkLost(at: now)
            _ = cast.peers[peer].takeOutput()
            cast.listen(to: peer, at: now, &trace)
        }
        linkOfUplink[index.number] = open(peer, nil)
        cast.peers[peer].linkOpened(at: now)
        pump(peer)
        tell { $0.uplinkReady(index) }
    }

    /// Hands on what somebody has to say, and sees what it wants.
    private func pump(_ peer: Int) {
        cast.listen(to: peer, at: now, &trace)
        let output = cast.peers[peer].takeOutput()
        if let link = linkOf[peer] {
            if !output.isEmpty { send(link, toGateway: true, output) }
            if cast.peers[peer].wantsClose { closeAtPeer(link) }
        }
        if linkOf[peer] == nil, !isConnecting[peer], cast.peers[peer].wantsLink, !cast.isCloud(peer) {
            isConnecting[peer] = true
            events.add(.connects(peer: peer), at: now + 1_000 + UInt64(linkDice.below(50_000)))
        }
        if let next = cast.peers[peer].nextWake {
            let at = max(next, now + 1)
            if wakeAt[peer].map({ at < $0 }) ?? true {
                wakeAt[peer] = at
                events.add(.wakes(peer: peer), at: at)
            }
        }
    }

    private func send(_ link: Int, toGateway: Bool, _ bytes: [UInt8]) {
        let road = links[link].road
        let arrivals =
            toGateway
            ? links[link].toGateway.send(bytes, at: now, road, &linkDice)
            : links[link].toPeer.send(bytes, at: now, road, &linkDice)
        for arrival in arrivals {
            events.add(.arrives(link: link, toGateway: toGateway, count: arrival.count), at: arrival.at)
        }
        if !toGateway, links[link].isWritable, links[link].toPeer.bytes.count > SimulatedLink.waitingBytesHigh
        {
            events.add(.buffer(link: link), at: now)
        }
    }

    private func arriveAtGateway(_ link: Int, _ count: Int) {
        let bytes = links[link].toGateway.take(count)
        guard links[link].life == life, links[link].isOpenAtGateway, !bytes.isEmpty else { return }
        statistics.bytesToGateway += bytes.count
        trace.note(bytes)
        trace.say("\(cast.name(links[link].peer)) > \(PacketWords.of(bytes))", at: now)
        if let connection = links[link].connection {
            tell { $0.received(connection, bytes) }
        } else if let index = uplink(link) {
            tell { $0.uplinkReceived(index, bytes) }
        }
    }

    private func arriveAtPeer(_ link: Int, _ count: Int) {
        if linkOf[links[link].peer] == link, !cast.peers[links[link].peer].isReading {
            return events.add(.arrives(link: link, toGateway: false, count: count), at: now + 100_000)
        }
        let bytes = links[link].toPeer.take(count)
        let peer = links[link].peer
        if !links[link].isWritable, links[link].toPeer.bytes.count <= SimulatedLink.waitingBytesLow {
            events.add(.buffer(link: link), at: now)
        }
        guard linkOf[peer] == link, links[link].isOpenAtPeer, !bytes.isEmpty else { return }
        if bytes.count > 4 { movedAt = now }
        statistics.bytesToPeers += bytes.count
        trace.note(bytes)
        trace.say("\(cast.name(peer)) < \(PacketWords.of(bytes))", at: now)
        cast.peers[peer].received(bytes, at: now)
        pump(peer)
    }

    private func tellWritability(_ link: Int) {
        let waiting = links[link].toPeer.bytes.count
        let isWritable =
            links[link].isWritable
            ? waiting <= SimulatedLink.waitingBytesHigh : waiting <= SimulatedLink.waitingBytesLow
        guard isWritable != links[link].isWritable, links[link].life == life, links[link].isOpenAtGateway
        else { return }
        links[link].isWritable = isWritable
        if let connection = links[link].connection {
            tell { $0.writability(connection, isWritable) }
        } else if let index = uplink(link) {
            tell { $0.uplinkWritability(index, isWritable) }
        }
    }

    private func uplink(_ link: Int) -> UplinkIndex? {
        let index = cast.uplinkIndex(of: links[link].peer)
        return index.flatMap { linkOfUplink[$0.number] == link ? $0 : nil }
    }

    // MARK: Ends of connections

    /// Behind what it has sent.
    private func closeAtPeer(_ link: Int) {
        let peer = links[link].peer
        trace.say("\(cast.name(peer)) closes", at: now)
        links[link].toGateway.isOver = true
        links[link].isOpenAtPeer = false
        events.add(.ends(link: link, toGateway: true), at: max(now, links[link].toGateway.notBefore) + 1_000)
        linkOf[peer] = nil
        cast.peers[peer].linkLost(at: now)
        pump(peer)
    }

    private func closeAtGateway(_ link: Int) {
        links[link].toPeer.isOver = true
        events.add(.ends(link: link, toGateway: false), at: max(now, links[link].toPeer.notBefore) + 1_000)
    }

    private func endAtGateway(_ link: Int) {
        forget(link)
        guard links[link].isOpenAtGateway, links[link].life == life else { return }
        links[link].isOpenAtGateway = false
        links[link].toGateway.isOver = true
        links[link].toPeer.isOver = true
        if let connection = links[link].connection {
            linkOfConnection[connection] = nil
            let wasThere = host?.knows(connection) == true
            tell { $0.lost(connection) }
            if !links[link].isMutilated, wasThere, host?.knows(connection) == false {
                cast.heardOut(links[link].peer, at: now)
            }
        } else if let index = uplink(link) {
            linkOfUplink[index.number] = nil
            tell { $0.uplinkLost(index) }
        }
        // Whatever still comes from the peer is answered with a reset.
        if links[link].isOpenAtPeer {
            events.add(
                .ends(link: link, toGateway: false), at: max(now, links[link].toPeer.notBefore) + 100_000)
        }
    }

    private func endAtPeer(_ link: Int) {
        let peer = links[link].peer
        if links[link].isOpenAtGateway {
            events.add(
                .ends(link: link, toGateway: true), at: max(now, links[link].toGateway.notBefore) + 1_000)
        }
        forget(link)
        guard links[link].isOpenAtPeer, linkOf[peer] == link else { return }
        links[link].isOpenAtPeer = false
        links[link].toGateway.isOver = true
        linkOf[peer] = nil
        trace.say("\(cast.name(peer)) learns that its connection is gone", at: now)
        cast.peers[peer].linkLost(at: now)
        pump(peer)
    }

    private func forget(_ link: Int) {
        if !links[link].isOpenAtGateway || !links[link].isOpenAtPeer {
            openLinks.removeAll {
                $0 == link && (!links[$0].isOpenAtGateway || links[$0].life != life)
                    && !links[$0].isOpenAtPeer
            }
        }
    }

    /// What is on its way is lost, from any byte on.
    private func cut(_ link: Int, gatewayLearnsAfter: UInt64, peerLearnsAfter: UInt64) {
        links[link].isMutilated = true
        links[link].toGateway.cut(&linkDice)
        links[link].toPeer.cut(&linkDice)
        events.add(
            .ends(link: link, toGateway: true),
            at: max(now, links[link].toGateway.notBefore) + gatewayLearnsAfter)
        events.add(
            .ends(link: link, toGateway: false), at: max(now, links[link].toPeer.notBefore) + peerLearnsAfter)
    }

    // MARK: Faults

    private func plan(_ kind: FaultKind) {
        guard let mean = kind.meanInterval, var dice = faultDice[kind] else { return }
        var wait = mean / 10 + UInt64(dice.below(Int(mean * 9 / 5)))
        if kind == .powerCut, dice.below(3) == 0 { wait /= 20 }
        faultDice[kind] = dice
        events.add(.fault(kind), at: now + wait)
    }

    private func strike(_ kind: FaultKind) {
        guard !isSettling, var dice = faultDice[kind] else { return }
        plan(kind)
        faultDice[kind]?.stir()
        switch kind {
        case .powerCut: return losePower(.powerCut)
        case .kill: kill()
        case .stop: tell { $0.stop() }
        case .linkCut, .halfOpen, .blackHole: strikeLink(kind, &dice)
        case .storm:
            for link in openLinks {
                cut(link, gatewayLearnsAfter: 0, peerLearnsAfter: UInt64(dice.below(10_000)))
            }
        case .outage:
            cloudAwayUntil = now + UInt64(dice.below(30_000_000))
            for link in openLinks where links[link].connection == nil {
                cut(
                    link, gatewayLearnsAfter: UInt64(dice.below(3_000_000)),
                    peerLearnsAfter: UInt64(dice.below(3_000_000)))
            }
        case .stall:
            let lasts = dice.below(8_000_000)
            diskIdleAt = max(diskIdleAt, now) + UInt64(lasts)
            // Whatever did not wait for the disk is found out when it never gets to it.
            if scenario.has(.powerCut), dice.coin() {
                events.add(.fails(life: life), at: now + UInt64(dice.below(lasts + 1)))
            }
        case .diskError:
            let errors = [DiskFault.noSpace, DiskFault.broken, DiskFault.broken, DiskFault.readOnly]
            let steps = DiskFault.Step.allCases.filter { $0 != .read }
            let step = dice.coin() ? nil : steps[dice.below(steps.count)]
            // What cannot be read three times in a row counts as damaged.
            disk.fault = DiskFault(
                after: dice.below(12), errorNumber: errors[dice.below(4)], step: step,
                times: 1 + dice.below(step == nil ? 2 : 4))
        case .wrongClock:
            // For less than it takes to be believed.
            clocks.setWrongly(
                by: [-86_400_000, 3_600_000, 315_360_000_000][dice.below(3)],
                until: now + UInt64(dice.below(50_000_000)))
        case .suspend:
            asleepUntil = now + UInt64(dice.below(40_000_000))
            cast.runs(since: asleepUntil)
        case .stepCut, .recoveryCut, .fullDisk, .rot, .neighbour, .noClock: return
        }
        statistics.faults[kind, default: 0] += 1
        trace.say("fault: \(kind.rawValue)", at: now)
    }

    private func strikeLink(_ kind: FaultKind, _ dice: inout Dice) {
        let open = openLinks.filter { links[$0].isOpenAtPeer && links[$0].isOpenAtGateway }
        guard !open.isEmpty else { return }
        let link = open[dice.below(open.count)]
        let long = UInt64(dice.below(40_000_000))
        let soon = UInt64(dice.below(50_000))
        switch kind {
        case .halfOpen:
            let isGatewayLate = dice.below(4) > 0
            cut(
                link, gatewayLearnsAfter: isGatewayLate ? long : soon,
                peerLearnsAfter: isGatewayLate ? soon : long)
        case .blackHole:
            let until = now + UInt64(dice.below(15_000_000))
            if dice.coin() { links[link].toGateway.notBefore = max(links[link].toGateway.notBefore, until) }
            if dice.coin() { links[link].toPeer.notBefore = max(links[link].toPeer.notBefore, until) }
        default: cut(link, gatewayLearnsAfter: soon, peerLearnsAfter: UInt64(dice.below(50_000)))
        }
    }

    // MARK: The end

    /// Once a second.
    private func look() {
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
    private func settle() {
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

    private var isQuiet: Bool {
        guard let host, !isDiskBusy, now - settlingSince > 3_000_000 else { return false }
        for i in cast.peers.indices where !isAbsent(i) && !cast.peers[i].isAtRest { return false }
        let quiet = now - movedAt
        return quiet > 40_000_000 || (quiet > 5_000_000 && cast.owesNothing(host.gateway.state))
    }

    private func tellUnrest() {
        isDone = true
        // What was damaged may be what somebody still waits for.
        guard !cast.isDamaged else { return }
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

    private func finish() {
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

extension Dice {
    /// So that a copy that was drawn from gives other numbers than the next.
    mutating func stir() { _ = next() }
}
