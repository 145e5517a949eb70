import GatewayCore
import MQTT

@testable import Journal

/// A whole gateway on a fault disk with everybody around it: publishers, receivers, a shared subscription and a cloud.
/// Nothing happens by itself, and the disk answers whenever it likes: what is asked of it is carried out later, and the
/// answer is heard later still. All that peers must be able to rely on is checked as they go.
struct Village: ~Copyable {
    private(set) var disk: FaultDisk
    private(set) var gateway: Gateway
    private(set) var journal: Journal
    private(set) var now = Instant(milliseconds: 1000)
    var dice: Dice
    /// Whoever talks to the gateway; the last is the cloud.
    var people: [Villager]
    /// What must not be, in words.
    var faults: [String] = []

    /// What the disk was asked and has not begun.
    private var asked: [DiskOperation] = []
    /// What it has done and nobody heard of.
    private var done: [DiskCompletion] = []
    private var isCheckpointWanted = false
    private var nextConnection: UInt64 = 1
    private let plan: JournalPlan
    private let corePlan: GatewayPlan
    /// What happened, for those who want to know how they got here.
    private(set) var counts = Counts()

    struct Counts {
        var cuts = 0
        var cutsOfRecovery = 0
        var checkpoints = 0
        var mergedFiles = 0
        var elided = 0
        var indexed = 0
        var loaded = 0
        var reused = 0
        var strikes = 0
    }

    // MARK: Beginning

    init(store: StoreID, plan: JournalPlan, corePlan: GatewayPlan, people: [Villager], dice: Dice) throws {
        self.plan = plan
        self.corePlan = corePlan
        self.people = people
        self.dice = dice
        disk = FaultDisk(formatted: store)
        var recovered = try Recovery.recover(&disk) { _, _ in }
        recovered.recycles = true
        journal = Journal(plan: plan, recovered: recovered)
        var effects: [Effect] = []
        gateway = Gateway(
            plan: corePlan, state: DurableState(), lastPosition: .zero, now: now, into: &effects)
        carryOut(effects)
    }

    // MARK: The gateway and its host

    mutating func handle(_ input: Input) {
        var effects: [Effect] = []
        gateway.handle(input, at: now, into: &effects)
        carryOut(effects)
    }

    private mutating func carryOut(_ effects: [Effect]) {
        var closed: [ConnectionID] = []
        for effect in effects {
            switch effect {
            case .send(let id, let packet):
                if let i = people.firstIndex(where: { $0.connection == id }) {
                    people[i].inbox.append(packet)
                }
            case .append(let record, let urgency): _ = journal.append(record, urgency, at: now)
            case .load(let session, let positions, let target):
                counts.loaded += 1
                journal.load(session, positions, target: target)
            case .index(let session, let stretch):
                counts.indexed += 1
                journal.index(session, stretch)
            case .elide(let position): journal.elide(position, at: now)
            case .hasten(let position): journal.hasten(position, at: now)
            case .close(let id): closed.append(id)
            case .uplink(_, let command): people[people.count - 1].heard(command, &faults)
            case .report(.dropped(let owner, .damaged, let count)):
                faults.append("\(count) damaged for \(owner)")
            case .reading, .packetSize, .report: break
            }
        }
        for id in closed {
            if let i = people.firstIndex(where: { $0.connection == id }) { people[i].isCut() }
            handle(.closed(id))
        }
    }

    /// What the host does at the end of each of its rounds.
    mutating func round() {
        journal.tick(at: now)
        var events: [StorageEvent] = []
        journal.takeEvents(into: &events)
        while !events.isEmpty {
            let told = events
            events = []
            for event in told {
                if case .elided = event { counts.elided += 1 }
                handle(.storage(event))
            }
            journal.tick(at: now)
            journal.takeEvents(into: &events)
        }
        if journal.wantsRecord {
            var effects: [Effect] = []
            gateway.markTime(into: &effects)
            carryOut(effects)
        }
        if journal.wantsCheckpoint || isCheckpointWanted {
            isCheckpointWanted = false
            counts.checkpoints += 1
            journal.beginCheckpoint(of: gateway.state, at: now)
        }
        if journal.wantsCompaction { journal.compact(by: gateway.state, at: now) }
        var operations: [DiskOperation] = []
        journal.takeOperations(into: &operations)
        for operation in operations {
            switch operation.action {
            case .publish: counts.mergedFiles += 1
            case .reuseSegment: counts.reused += 1
            default: break
            }
        }
        asked += operations
    }

    mutating func passes(milliseconds: UInt64) {
        now = now.advanced(byMilliseconds: milliseconds)
        handle(.deadline)
        round()
    }

    mutating func wantsCheckpoint() { isCheckpointWanted = true }

    /// The disk carries out some of what it was asked.
    mutating func diskWorks(_ count: Int = .max) throws {
        for operation in asked.prefix(count) {
            asked.removeFirst()
            done.append(try disk.perform(operation))
        }
    }

    /// The gateway hears what the disk has done.
    mutating func diskAnswers() {
        let completions = done
        done = []
        for completion in completions { journal.completed(completion, at: now) }
        round()
    }

    mutating func change(_ body: (inout FaultDisk) -> Void) { body(&disk) }

    // MARK: Power

    /// The power fails, or the process is killed, and another gateway starts on what the disk has: after some tries,
    /// in which the power fails again.
    mutating func losePower(isKilled: Bool) throws {
        counts.cuts += 1
        counts.strikes += disk.strikes
        disk.fault = nil
        asked = []
        done = []
        for i in people.indices { hearLastWords(i) }
        if !isKilled { disk.losePower(&dice) }
        while dice.below(4) == 0 {
            disk.stepsLeft = dice.below(6)
            do { _ = try recover() } catch RecoveryError.unreadable {
                counts.cutsOfRecovery += 1
            }
            disk.losePower(&dice)
        }
        disk.stepsLeft = .max
        let (state, recovered) = try recover()
        checkBooks()
        if recovered.report.isDamaged { faults.append("damaged: \(recovered.report)") }
        now = now.advanced(byMilliseconds: UInt64(dice.below(5000)))
        now = max(now, recovered.clock.advanced(byMilliseconds: 1))
        journal = Journal(plan: plan, recovered: recovered)
        var effects: [Effect] = []
        gateway = Gateway(
            plan: corePlan, state: state, lastPosition: recovered.last, stoppedAt: recovered.clock, now: now,
            into: &effects)
        carryOut(effects)
        round()
    }

    /// What reached the wire before the power failed may still arrive.
    private mutating func hearLastWords(_ i: Int) {
        if dice.coin() { _ = people[i].hear(people[i].inbox.count, &faults) }
        people[i].isCut()
    }

    /// As `DiskStore` does it.
    private mutating func recover() throws -> (DurableState, RecoveredLog) {
        var state = DurableState(limits: corePlan.limits)
        var recovered = try Recovery.recover(&disk) {
            state.apply($0, at: $1)
        } sealed: {
            state.seal($0, queues: $1)
        }
        var again = DurableState()
        let second: RecoveredLog = try Recovery.recover(&disk) { again.apply($0, at: $1) }
        if second != recovered || again.balance != state.balance { faults.append("two recoveries differ") }
        for name in recovered.report.unfinished + recovered.report.setAside {
            if dice.below(8) == 0 { break }
            disk.remove(name)
        }
        recovered.recycles = true
        return (state, recovered)
    }

    /// Everything is accounted for, and every message that waits is in some Record (promise P3).
    mutating func checkBooks() {
        var audit = Audit()
        var state = DurableState()
        do {
            _ = try Inspection.inspect(
                &disk,
                recovered: { record, position in
                    state.apply(record, at: position)
                    audit.recovered(record)
                }, found: { audit.inLog($0.record) })
        } catch {
            faults.append("cannot be inspected: \(error)")
        }
        let result = audit.result(state)
        if !result.isEven {
            faults.append("not balanced: \(result.lines.filter { !$0.isEven }) \(result.total)")
        }
    }

    // MARK: People

    /// Somebody connects, anew if need be.
    mutating func connects(_ i: Int) {
        if people[i].isCloud { return linksUp() }
        cutsOff(i)
        let id = ConnectionID(nextConnection)
        nextConnection += 1
        people[i].opens(id)
        handle(.opened(id, listener: 0))
        handle(.received(id, .connect(people[i].connect)))
    }

    private mutating func linksUp() {
        let cloud = people.count - 1
        cutsOff(cloud)
        guard people[cloud].isWanted else { return }
        let isPresent = people[cloud].linksUp()
        handle(
            .uplink(
                UplinkIndex(0),
                .connected(
                    UplinkTerms(version: .v5_0, sessionPresent: isPresent, receiveMaximum: 4))))
    }

    /// A link is cut; what was on its way may have arrived.
    mutating func cutsOff(_ i: Int) {
        guard people[i].isOpen else { return }
        if dice.coin() { _ = people[i].hear(dice.below(people[i].inbox.count + 1), &faults) }
        let id = people[i].connection
        people[i].isCut()
        if people[i].isCloud {
            handle(.uplink(UplinkIndex(0), .disconnected))
        } else if let id {
            handle(.closed(id))
        }
    }

    /// Somebody hears some of what was sent to it, and answers.
    mutating func hears(_ i: Int, _ count: Int = .max) {
        for packet in people[i].hear(count, &faults) { says(i, packet) }
    }

    mutating func says(_ i: Int, _ packet: Packet) {
        guard people[i].isOpen else { return }
        if people[i].isCloud {
            handle(.uplink(UplinkIndex(0), .received(packet)))
        } else if let id = people[i].connection {
            handle(.received(id, packet))
        }
    }

    /// Somebody publishes its next message, if it may.
    mutating func publishes(_ i: Int, _ qos: QoS, retain: Bool, padding: Int) {
        guard let packet = people[i].publish(qos, retain: retain, padding: padding) else { return }
        says(i, packet)
    }
}
