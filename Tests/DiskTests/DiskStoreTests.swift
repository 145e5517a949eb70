import Foundation
import GatewayCore
import MQTT
import Testing

@testable import Disk
@testable import Journal

/// A directory of its own for a test, gone afterwards.
final class Scratch {
    let path: String

    init() {
        path = FileManager.default.temporaryDirectory.path + "/tidegate-disk-" + UUID().uuidString
    }

    deinit {
        do { try FileManager.default.removeItem(atPath: path) } catch {
            print("left behind: \(path): \(error)")
        }
    }

    func files(_ prefix: String) throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: path).filter { $0.hasPrefix(prefix) }.sorted()
    }

    func mode() throws -> Int? {
        try FileManager.default.attributesOfItem(atPath: path)[.posixPermissions] as? Int
    }
}

/// What the host is in the product: it hops completions from the disk's thread to its own.
final class Host {
    private final class Mailbox: @unchecked Sendable {  // everything is behind the lock
        private let lock = NSCondition()
        private var completions: [DiskCompletion] = []
        private(set) var deliveries = 0

        func put(_ done: [DiskCompletion]) {
            lock.withLock {
                completions += done
                deliveries += 1
                lock.signal()
            }
        }

        func take() -> [DiskCompletion] {
            lock.withLock {
                let deadline = Date().addingTimeInterval(10)
                while completions.isEmpty, lock.wait(until: deadline) {}
                defer { completions = [] }
                return completions
            }
        }
    }

    let store: DiskStore
    let thread: DiskThread
    var journal: Journal
    var events: [StorageEvent] = []
    private(set) var found: [(Record, Position)] = []
    private let mailbox = Mailbox()
    private var outstanding = 0
    private var now: Instant

    init(_ path: String, plan: JournalPlan = JournalPlan()) throws {
        var found: [(Record, Position)] = []
        store = try DiskStore.open(path: path, allowVolatile: true) { found.append(($0, $1)) }
        let mailbox = mailbox
        thread = try store.start { mailbox.put($0) }
        journal = Journal(plan: plan, recovered: store.recovered)
        now = store.recovered.clock
        self.found = found
    }

    deinit { thread.stop() }

    func append(_ topic: String, _ urgency: Urgency = .control) {
        let message = MessageRecord(
            qos: .atLeastOnce,
            message: ApplicationMessage(topic: Array(topic.utf8), payload: Array(repeating: 7, count: 1000)),
            targets: [.init(session: SessionID(1), qos: .atLeastOnce)])
        _ = journal.append(.message(message), urgency, at: now)
    }

    func settle(after milliseconds: UInt64 = 1) throws {
        now = now.advanced(byMilliseconds: milliseconds)
        journal.tick(at: now)
        while true {
            var operations: [DiskOperation] = []
            journal.takeOperations(into: &operations)
            outstanding += operations.count
            thread.submit(operations)
            journal.takeEvents(into: &events)
            if outstanding == 0 { return }
            let done = mailbox.take()
            try #require(!done.isEmpty, "the disk answers within ten seconds")
            outstanding -= done.count
            for completion in done { journal.completed(completion, at: now) }
        }
    }

    func checkpoint(_ state: some CheckpointSource) throws {
        journal.beginCheckpoint(of: state, at: now)
        try settle()
    }

    func close() throws {
        journal.close(at: now)
        try settle()
        #expect(journal.isClosed)
    }

    var topics: [String] {
        found.compactMap { record, _ in
            guard case .message(let message) = record else { return nil }
            return String(decoding: message.message.topic, as: UTF8.self)
        }
    }
}

/// Owes nothing.
struct NothingOwed: CheckpointSource {
    func snapshot(_ body: (Record) -> Void) { body(.counters(nextSession: 42)) }
    func owes(from first: Position, through last: Position) -> Bool { false }
    func owedCount(in stretch: Stretch) -> Int { 0 }
    func needs(_ session: SessionID, _ delivery: Delivery) -> Bool { false }
    func strayPositions(in stretch: Stretch) -> Set<Position> { [] }
}

@Suite("Stores on a real disk")
struct DiskStoreTests {
    @Test("a new store is a private directory with FORMAT and LOCK, and is empty")
    func newStore() throws {
        let scratch = Scratch()
        var count = 0
        let store = try DiskStore.open(path: scratch.path, allowVolatile: true) { _, _ in count += 1 }
        #expect(count == 0 && store.recovered.last == .zero)
        #expect(try scratch.mode() == 0o700)
        #expect(try scratch.files("") == ["FORMAT", "LOCK"])
    }

    @Test("P4: the file system's space is known before the first write")
    func spaceIsKnown() throws {
        let scratch = Scratch()
        let store = try DiskStore.open(path: scratch.path, allowVolatile: true) { _, _ in }
        let space = try #require(store.recovered.space)
        #expect(space.total > 0 && space.free <= space.total)
    }

    @Test("a second opener is refused while the first holds the lock, and is told who holds it")
    func lock() throws {
        let scratch = Scratch()
        do {
            let first = try DiskStore.open(path: scratch.path, allowVolatile: true) { _, _ in }
            let error = #expect(throws: StoreError.self) {
                try DiskStore.open(path: scratch.path, allowVolatile: true) { _, _ in }
            }
            #expect(error?.description.contains("process \(getpid())") == true)
            withExtendedLifetime(first) {}
        }
        _ = try DiskStore.open(path: scratch.path, allowVolatile: true) { _, _ in }
    }

    @Test("what was durable is there for the next process, in order; loads answer from disk")
    func reopen() throws {
        let scratch = Scratch()
        do {
            let host = try Host(scratch.path)
            for n in 1...50 { host.append("t/\(n)") }
            try host.settle()
            guard case .durable(let position)? = host.events.last else {
                Issue.record("nothing became durable")
                return
            }
            #expect(position == Position(50))
            // No clean stop: as after a kill.
        }
        let host = try Host(scratch.path)
        #expect(host.topics == (1...50).map { "t/\($0)" })
        #expect(!host.store.recovered.wasCleanShutdown && !host.store.recovered.report.isDamaged)
        host.events = []
        host.journal.load(SessionID(1), [Position(3), Position(49)])
        try host.settle()
        guard case .loaded(_, let answers)? = host.events.last else {
            Issue.record("no answer")
            return
        }
        #expect(
            answers.map { $0.1.map { String(decoding: $0.message.topic, as: UTF8.self) } } == ["t/3", "t/49"])
        host.append("t/51")
        try host.close()
        host.thread.stop()
    }

    @Test("a clean stop is known as one, and boots are counted")
    func cleanStop() throws {
        let scratch = Scratch()
        do {
            let host = try Host(scratch.path)
            host.append("lazy", .lazy)
            try host.close()
        }
        let host = try Host(scratch.path)
        #expect(host.topics == ["lazy"])
        #expect(host.store.recovered.wasCleanShutdown && host.store.recovered.boot == 1)
    }

    @Test("segments and checkpoints go once a later checkpoint has made them needless")
    func checkpoints() throws {
        let scratch = Scratch()
        var plan = JournalPlan()
        plan.segmentBytes = 32 << 10
        do {
            let host = try Host(scratch.path, plan: plan)
            for round in 0..<4 {
                for n in 0..<60 { host.append("\(round)/\(n)") }
                try host.settle()
                try host.checkpoint(NothingOwed())
            }
            #expect(try scratch.files("ckpt-").count == 2)
            #expect(try scratch.files("seg-").count < 8)
            #expect(try scratch.files("").allSatisfy { !$0.hasSuffix(".tmp") })
            host.append("last")
            try host.close()
        }
        let host = try Host(scratch.path, plan: plan)
        #expect(host.found.first?.0 == .counters(nextSession: 42) && host.found.first?.1 == .zero)
        #expect(host.topics == ["last"])
        #expect(host.store.recovered.last == Position(241))
    }

    @Test("a file that is no checkpoint is put aside, remains of a power cut are deleted, the rest is served")
    func tidying() throws {
        let scratch = Scratch()
        do {
            let host = try Host(scratch.path)
            host.append("kept")
            try host.close()
        }
        let stray = "ckpt-00000000000000ff"
        for name in [stray, "ckpt-0000000000000001.tmp", "seg-00000000000000aa.log"] {
            #expect(
                FileManager.default.createFile(atPath: scratch.path + "/" + name, contents: Data([1, 2, 3])))
        }
        let host = try Host(scratch.path)
        #expect(host.topics == ["kept"])
        #expect(try scratch.files("ckpt-") == [])
        #expect(try scratch.files("seg-") == ["seg-0000000000000001.log"])
        #expect(try FileManager.default.contentsOfDirectory(atPath: scratch.path + "/quarantine") == [stray])
    }

    @Test("a damaged FORMAT is written anew from what the segments know")
    func formatLost() throws {
        let scratch = Scratch()
        do {
            let host = try Host(scratch.path)
            host.append("kept")
            try host.close()
        }
        try FileManager.default.removeItem(atPath: scratch.path + "/FORMAT")
        do {
            let host = try Host(scratch.path)
            #expect(host.topics == ["kept"] && host.store.recovered.report.formatIsDamaged)
        }
        let host = try Host(scratch.path)
        #expect(host.topics == ["kept"] && !host.store.recovered.report.formatIsDamaged)
    }

    @Test("a store of another version is refused untouched, with what to do")
    func newerVersion() throws {
        let scratch = Scratch()
        try FileManager.default.createDirectory(atPath: scratch.path, withIntermediateDirectories: false)
        var format = StoreFormat(store: try #require(StoreID(Array(1...16))), createdWallMilliseconds: 0)
        format.incompatible = 2
        try Data(format.encoded).write(to: URL(fileURLWithPath: scratch.path + "/FORMAT"))
        #expect(throws: StoreError.unknownFeatures(path: scratch.path + "/FORMAT", bits: 2)) {
            try DiskStore.open(path: scratch.path, allowVolatile: true) { _, _ in }
        }
    }

    @Test("tmpfs is refused unless it is allowed, and then it is warned of")
    func volatileStorage() throws {
        let path = "/dev/shm/tidegate-disk-" + UUID().uuidString
        defer {
            do { try FileManager.default.removeItem(atPath: path) } catch { print("left behind: \(path)") }
        }
        #expect(throws: StoreError.volatileFileSystem(path: path, kind: "tmpfs")) {
            try DiskStore.open(path: path) { _, _ in }
        }
        #expect(try DiskStore.open(path: path, allowVolatile: true) { _, _ in }.warnings.count == 1)
    }

    @Test("a directory that cannot be had is an error that says which and why")
    func missingParent() {
        let error = #expect(throws: StoreError.self) {
            try DiskStore.open(path: "/nonexistent/tidegate", allowVolatile: true) { _, _ in }
        }
        #expect(error?.description.contains("/nonexistent/tidegate") == true)
        #expect(error?.description.contains("No such file or directory") == true)
    }

    @Test("each read is handed over before the next is made: no round of them gathers in memory")
    func readsOneByOne() throws {
        final class Deliveries: @unchecked Sendable {  // read only after the thread was joined
            var counts: [Int] = []
        }
        let scratch = Scratch()
        do {
            let host = try Host(scratch.path)
            host.append("kept")
            try host.close()
        }
        let store = try DiskStore.open(path: scratch.path, allowVolatile: true) { _, _ in }
        let deliveries = Deliveries()
        let thread = try store.start { deliveries.counts.append($0.count) }
        thread.submit(
            (1...4 as ClosedRange<UInt64>).map { number in
                let action = DiskOperation.Action.read(.segment(1), offset: 0, count: pageBytes)
                return DiskOperation(token: OperationToken(number), action: action)
            })
        thread.stop()
        #expect(deliveries.counts == [1, 1, 1, 1])
    }

    @Test(
        "a merged file is written in parts, what a failed attempt left is overwritten, and then it has its name"
    )
    func mergedFile() throws {
        let scratch = Scratch()
        let store = try DiskStore.open(path: scratch.path, allowVolatile: true) { _, _ in }
        let thread = try store.start { _ in }
        let actions: [DiskOperation.Action] = [
            .writePart(.mergedPart(7), offset: 0, bytes: Array(repeating: 9, count: 3 * pageBytes)),
            .writePart(.mergedPart(7), offset: 0, bytes: Array(repeating: 1, count: pageBytes)),
            .writePart(.mergedPart(7), offset: pageBytes, bytes: Array(repeating: 2, count: pageBytes)),
            .publish(.merged(7), from: .mergedPart(7)),
        ]
        thread.submit(actions.enumerated().map { .init(token: .init(UInt64($0 + 1)), action: $1) })
        thread.stop()
        let name = StoreFile.merged(7).name
        let bytes = try Data(contentsOf: URL(fileURLWithPath: scratch.path + "/" + name))
        #expect(Array(bytes) == Array(repeating: 1, count: pageBytes) + Array(repeating: 2, count: pageBytes))
        #expect(try !scratch.files("").contains(StoreFile.mergedPart(7).name))
    }
}

@Suite("Clocks")
struct BootClockTests {
    @Test("boot time goes on and is not the wall clock; the wall clock is the machine's")
    func clocks() {
        let before = BootClock.milliseconds()
        usleep(5_000)
        let passed = BootClock.milliseconds() - before
        #expect(passed >= 5 && passed < 5_000)
        let difference = BootClock.wall().milliseconds - Int64(Date().timeIntervalSince1970 * 1000)
        #expect(abs(difference) < 1_000)
    }

    @Test("the machine's boot is the kernel's boot_id, the same each time")
    func machineBoot() throws {
        let text = try String(contentsOfFile: "/proc/sys/kernel/random/boot_id", encoding: .utf8)
        #expect(BootClock.machineBoot() != nil)
        #expect(BootClock.machineBoot() == MachineBoot(text: text.utf8))
    }
}
