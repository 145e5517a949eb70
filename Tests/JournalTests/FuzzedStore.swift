import GatewayCore
import MQTT

@testable import Journal

/// What a disk might hold, and what must hold whatever that is.
///
/// The fuzzer (`make fuzz`, Tests/Fuzz) makes these up for as long as it is let; the ones that broke something
/// are replayed in `StoresFoundByFuzzing`.
struct FuzzedStore {
    /// The store's files as recovery finds them.
    private(set) var disk: FaultDisk
    /// Of all files.
    private(set) var bytes = 0
    private var files: [File] = []

    private struct File {
        var file: StoreFile
        var bytes: [UInt8]
        var chunkCount: UInt32 = 0
        var recordCount: UInt64 = 0
    }

    private static let store = StoreID(Array(1...16))

    /// What a part of the input becomes.
    private enum Part: UInt8 {
        /// Begins a file; a segment with the page that is its header, which may say that it is a merged file.
        case segment, checkpoint, format, free
        /// Goes on in it: with a batch or a footer from the next page on, with a chunk of a checkpoint, or with the
        /// very bytes.
        case batch, footer, chunk, raw
    }

    /// What makes a part that is put right verify: the bytes up to these offsets are not the input's.
    private enum OwnBytes {
        static let header = 40
        static let format = 12
        static let batch = 24
        static let footer = 32
    }

    /// An input is a run of parts: a byte that says what the part is, and with bit 3 that it is put right; the number
    /// of a file, or the kind of a chunk, and the part's length in two bytes each; and so many bytes.
    ///
    /// What is put right gets the magic number, identity, length, counts and checksums that it must have, so that
    /// what is behind them is read.
    init?(_ input: [UInt8]) {
        guard let store = Self.store else { return nil }
        disk = FaultDisk(formatted: store)
        disk.space = FileSystemSpace(free: 1 << 30, total: 2 << 30)
        var place = 0
        while place + 5 <= input.count {
            guard let part = Part(rawValue: input[place] & 7) else { return nil }
            let number = UInt64(input[place + 1]) | UInt64(input[place + 2]) << 8
            let length = Int(input[place + 3]) | Int(input[place + 4]) << 8
            let bytes = Array(input[(place + 5)...].prefix(length))
            add(part, number, bytes, isPutRight: input[place] & 8 != 0, store)
            place += 5 + length
        }
        for file in files { disk.put(file.file.name, file.bytes) }
        bytes = disk.fileNames().reduce(0) { $0 + disk.content($1).count }
    }

    /// A store that was made in another way.
    init(_ disk: FaultDisk) {
        self.disk = disk
        bytes = disk.fileNames().reduce(0) { $0 + disk.content($1).count }
    }

    private mutating func add(
        _ part: Part, _ number: UInt64, _ bytes: [UInt8], isPutRight: Bool, _ store: StoreID
    ) {
        switch part {
        case .segment:
            let page = isPutRight ? Self.header(number, bytes, store) : bytes
            files.append(
                File(file: Self.isMerged(page, number) ? .merged(number) : .segment(number), bytes: page))
        case .format: files.append(File(file: .format, bytes: isPutRight ? Self.format(bytes) : bytes))
        case .checkpoint: files.append(File(file: .checkpoint(number), bytes: bytes))
        case .free: files.append(File(file: .free(number), bytes: bytes))
        case .batch, .footer, .chunk, .raw:
            guard var file = files.popLast() else { return }
            switch (part, file.file) {
            case (.batch, .segment(let id)), (.batch, .merged(let id)):
                file.bytes.pad(to: pageBytes)
                file.bytes += isPutRight ? Self.batch(id, file.bytes.count, bytes, store) : bytes
            case (.footer, .segment(let id)), (.footer, .merged(let id)):
                file.bytes.pad(to: pageBytes)
                file.bytes += isPutRight ? Self.footer(id, file.bytes.count, bytes, store) : bytes
            case (.chunk, .checkpoint(let position)) where isPutRight:
                Self.append(UInt16(number), bytes, Position(position), store, to: &file)
            default: file.bytes += bytes
            }
            files.append(file)
        }
    }

    // MARK: Putting right

    private static func isMerged(_ page: [UInt8], _ number: UInt64) -> Bool {
        do { return try SegmentHeader(decoding: page, segment: number).merged != nil } catch { return false }
    }

    private static func header(_ segment: UInt64, _ bytes: [UInt8], _ store: StoreID) -> [UInt8] {
        let whole = SegmentHeader(
            store: store, segment: segment, predecessor: SegmentEnd(segment: 0, offset: 0, last: .zero),
            clock: Instant(milliseconds: 0), boot: 1
        ).encoded
        var page = Array(whole.prefix(OwnBytes.header)) + bytes.prefix(pageBytes - OwnBytes.header)
        page.pad(to: pageBytes)
        let seed = UInt32(truncatingIfNeeded: segment) ^ 0x7469_6465
        page.put(Checksum.of(page, 8..<pageBytes, seed: seed), at: 4)
        return page
    }

    private static func format(_ bytes: [UInt8]) -> [UInt8] {
        var whole = Array("TIDEGATE".utf8) + [0, 0, 0, 0] + bytes.prefix(64 - OwnBytes.format)
        whole.pad(to: 64)
        whole.put(Checksum.of(whole, 12..<64, seed: 0), at: 8)
        return whole
    }

    private static func batch(_ segment: UInt64, _ offset: Int, _ bytes: [UInt8], _ store: StoreID)
        -> [UInt8]
    {
        var whole = begun(0x5442_4754, segment, bodyLength: bytes.count + OwnBytes.batch - BatchHeader.size)
        whole += bytes
        if let count = recordCount(whole, from: BatchHeader.size), let fitting = UInt16(exactly: count) {
            whole.replaceSubrange(52..<54, with: [UInt8(fitting & 0xFF), UInt8(fitting >> 8)])
        }
        return sealed(
            whole, headSize: BatchHeader.size, Checksum.seed(store, segment, offset: offset))
    }

    private static func footer(_ segment: UInt64, _ offset: Int, _ bytes: [UInt8], _ store: StoreID)
        -> [UInt8]
    {
        var whole = begun(0x5446_4754, segment, bodyLength: bytes.count + OwnBytes.footer - Footer.headSize)
        whole.append(fixed: UInt64(offset))
        return sealed(
            whole + bytes, headSize: Footer.headSize, Checksum.seed(store, segment, offset: offset))
    }

    private static func begun(_ magic: UInt32, _ segment: UInt64, bodyLength: Int) -> [UInt8] {
        var whole: [UInt8] = []
        whole.append(fixed: magic)
        whole.append(fixed: UInt32(0))
        whole.append(fixed: UInt32(max(bodyLength, 0)))
        whole.append(fixed: UInt32(0))
        whole.append(fixed: segment)
        return whole
    }

    /// In whole pages.
    private static func sealed(_ bytes: [UInt8], headSize: Int, _ seed: UInt32) -> [UInt8] {
        var whole = bytes
        if whole.count < headSize { whole.pad(to: headSize) }
        whole.put(Checksum.of(whole, headSize..<whole.count, seed: seed), at: 12)
        whole.put(Checksum.of(whole, 8..<headSize, seed: seed), at: 4)
        whole.pad(to: pageBytes)
        return whole
    }

    private static func append(
        _ kind: UInt16, _ bytes: [UInt8], _ position: Position, _ store: StoreID, to file: inout File
    ) {
        var payload = bytes
        let kind = CheckpointChunk.Kind(rawValue: kind) ?? .records
        switch kind {
        case .wear: break
        case .header:
            payload = []
            payload.append(fixed: position.number)
            payload += bytes
        case .records: file.recordCount += recordCount(bytes, from: 0) ?? 0
        case .end:
            payload = []
            payload.append(fixed: file.recordCount)
        }
        CheckpointChunk.append(
            kind, payload, index: file.chunkCount, seed: CheckpointChunk.seed(store, position),
            to: &file.bytes)
        file.chunkCount += 1
    }

    /// nil unless frames fill `bytes` to their end.
    private static func recordCount(_ bytes: [UInt8], from start: Int) -> UInt64? {
        guard start <= bytes.count else { return nil }
        var reader = ByteReader(bytes, start..<bytes.count)
        var count: UInt64 = 0
        do {
            while !reader.isAtEnd {
                _ = try reader.lengthPrefixed()
                count += 1
            }
        } catch {
            return nil
        }
        return count
    }

    // MARK: Inputs

    /// The input that becomes the segments and checkpoints of `disk`, which must be intact.
    static func input(_ disk: FaultDisk) -> [UInt8] {
        var input: [UInt8] = []
        for name in disk.fileNames() {
            let bytes = disk.content(name)
            switch StoreFile(name: name) {
            case .segment(let id), .merged(let id): append(segment: id, bytes, to: &input)
            case .checkpoint(let position): append(checkpoint: position, bytes, to: &input)
            case .free(let id): append(.free, id, bytes.prefix(3 * pageBytes), to: &input)
            case .format, .reserve, .mergedPart, nil: continue
            }
        }
        return input
    }

    private static func append(
        _ part: Part, _ number: UInt64, _ bytes: some Collection<UInt8>, to input: inout [UInt8]
    ) {
        input.append(part.rawValue | 8)
        input.append(fixed: UInt16(truncatingIfNeeded: number))
        input.append(fixed: UInt16(truncatingIfNeeded: bytes.count))
        input += bytes
    }

    private static func append(segment: UInt64, _ bytes: [UInt8], to input: inout [UInt8]) {
        guard let store else { return }
        append(.segment, segment, bytes[OwnBytes.header..<120], to: &input)
        for offset in stride(from: pageBytes, to: bytes.count, by: pageBytes) {
            do {
                let batch = try BatchHeader(
                    decoding: bytes, at: offset, offset: offset, store: store, segment: segment)
                let end = offset + BatchHeader.size + Int(batch.payloadLength)
                append(.batch, 0, bytes[offset + OwnBytes.batch..<end], to: &input)
                continue
            } catch {}
            do {
                let footer = try Footer.head(
                    bytes, at: offset, offset: offset, store: store, segment: segment)
                let end = offset + Footer.headSize + footer.bodyLength
                append(.footer, 0, bytes[offset + OwnBytes.footer..<end], to: &input)
            } catch {}
        }
    }

    private static func append(checkpoint number: UInt64, _ bytes: [UInt8], to input: inout [UInt8]) {
        guard let store else { return }
        append(.checkpoint, number, [], to: &input)
        let seed = CheckpointChunk.seed(store, Position(number))
        var offset = 0
        while offset < bytes.count {
            do {
                let head = try CheckpointChunk.head(Array(bytes[offset...]), seed: seed)
                let payload =
                    offset + CheckpointChunk.headSize..<offset + CheckpointChunk.headSize + head.length
                let skipped = head.kind == CheckpointChunk.Kind.header.rawValue ? 8 : 0
                append(.chunk, UInt64(head.kind), bytes[payload].dropFirst(skipped), to: &input)
                offset = payload.upperBound
            } catch { return }
        }
    }

    /// Stores as gateways leave them, and one that holds a Record of every kind.
    static var seeds: [[UInt8]] {
        var seeds: [[UInt8]] = []
        do {
            for messages in [0, 3, 40] {
                let house = try Self.lived(messages)
                seeds.append(input(house.disk))
            }
            seeds.append(input(try Self.compacted().disk))
        } catch {
            preconditionFailure("nothing fails here: \(error)")
        }
        return seeds + everyRecord
    }

    /// A gateway that was killed after some messages, half of which were received, and a checkpoint.
    static func lived(_ messages: Int) throws -> House {
        guard let store else { preconditionFailure("16 bytes are an identity") }
        var house = try House.starting(on: FaultDisk(formatted: store))
        for (client, filter) in [("reader", "t"), ("other", "#"), ("member", "$share/group/t")] {
            try house.connects(client)
            try house.subscribes(client, filter, client == "other" ? .exactlyOnce : .atLeastOnce)
            try house.leaves(client)
        }
        try house.connects("writer", expiry: 0)
        for half in 0..<2 {
            for n in 0..<messages {
                try house.publishes(
                    "writer", "\(half)-\(n)", n % 2 == 0 ? .exactlyOnce : .atLeastOnce, padding: 10 * n,
                    to: [])
            }
            if half == 0 {
                try house.connects("other")
                try house.checkpoints()
                try house.leaves("other")
            }
        }
        return house
    }

    /// A gateway that merged segments, in which one message in nine waits for somebody who does not come, and was
    /// killed when it had written some more.
    static func compacted() throws -> House {
        guard let store else { preconditionFailure("16 bytes are an identity") }
        var plan = House.plan()
        plan.segmentBytes = 40 << 10
        plan.compactionSlackBytes = 0
        var house = try House.starting(on: FaultDisk(formatted: store), plan: plan)
        for (client, filter) in [("reader", "kept"), ("other", "#")] {
            try house.connects(client)
            try house.subscribes(client, filter, .atLeastOnce)
            try house.leaves(client)
        }
        try house.connects("writer", expiry: 0)
        for n in 0..<40 {
            let topic = n % 9 == 4 ? "kept" : "t"
            try house.publishes("writer", "\(n)", .atLeastOnce, topic: topic, to: [])
        }
        try house.connects("other")
        for n in 0..<3 {
            try house.publishes("writer", "more-\(n)", .atLeastOnce, to: [])
            try house.checkpoints()
        }
        for _ in 0..<20 { try house.passes(milliseconds: 10_000) }
        return house
    }

    /// Records of each kind alone in a log and in a checkpoint.
    private static var everyRecord: [[UInt8]] {
        (0..<Samples.caseCount).map { which in
            var dice = Dice(UInt64(which))
            var frames: [UInt8] = []
            for _ in 0..<3 {
                RecordCodec.frame(Samples.record(which, &dice, payloadMax: 30), into: &frames)
            }
            var batch: [UInt8] = []
            for field: UInt64 in [1, 0, 0] { batch.append(fixed: field) }
            batch += [1, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
            var header: [UInt8] = []
            for field: UInt64 in [0, 1, 1 << 8, 0, 0, 0, 0, 0] { header.append(fixed: field) }
            var input: [UInt8] = []
            if which % 2 == 0 {
                append(.segment, 1, [], to: &input)
                append(.batch, 0, batch + frames, to: &input)
            } else {
                append(.checkpoint, 9, [], to: &input)
                append(.chunk, 1, header.prefix(41), to: &input)
                append(.chunk, 2, frames, to: &input)
                append(.chunk, 3, [], to: &input)
            }
            return input
        }
    }

    // MARK: Rules

    /// What recovery makes of it.
    private struct Outcome: Equatable {
        var records: [Record] = []
        var positions: [Position] = []
        var stretches: [Stretch] = []
        var log: RecoveredLog?
        var refusal: RecoveryError?
    }

    private func recover(_ disk: inout FaultDisk) -> Outcome {
        var outcome = Outcome()
        do {
            outcome.log = try Recovery.recover(&disk) {
                outcome.records.append($0)
                outcome.positions.append($1)
            } sealed: { stretch, _ in
                outcome.stretches.append(stretch)
            }
        } catch {
            outcome.refusal = error
        }
        return outcome
    }

    /// Recovers as the gateway does, and keeps nothing.
    func recoverAndForget() {
        var disk = disk
        var state = DurableState()
        do {
            _ = try Recovery.recover(&disk) {
                state.apply($0, at: $1)
            } sealed: {
                state.seal($0, queues: $1)
            }
        } catch {}
    }

    /// The rule that recovering this store breaks, in words; nil when all hold.
    func brokenRule() -> String? {
        var disk = disk
        let once = recover(&disk)
        guard recover(&disk) == once else { return "to recover twice is not to recover once" }
        for record in once.records {
            var bytes: [UInt8] = []
            RecordCodec.encode(record, into: &bytes)
            do {
                guard try RecordCodec.decode(bytes) == record else { return "does not come back: \(record)" }
            } catch {
                return "does not decode: \(record): \(error)"
            }
        }
        guard let log = once.log else { return nil }
        // Merged files are numbered when they are written, which is later.
        let plain = log.segments.filter { !$0.isMerged }
        if !zip(plain, plain.dropFirst()).allSatisfy({ $0.id < $1.id }) { return "segments are not in order" }
        do {
            try examine()
            return try brokenService()
        } catch {
            return "the disk refused: \(error)"
        }
    }

    /// What the commands do that look at a store: nothing that is in it may stop them.
    private func examine() throws {
        var disk = disk
        var state = DurableState()
        var audit = Audit()
        var length = 0
        let inspection = try Inspection.inspect(
            &disk,
            recovered: {
                state.apply($0, at: $1)
                audit.recovered($0)
            },
            found: {
                audit.inLog($0.record)
                length += $0.record.line(payload: true).utf8.count
            })
        _ = audit.result(state)
        _ = StoreStatistics(inspection, state, enduranceBytes: 1 << 40).json
    }

    /// A gateway that starts on it takes a message for somebody away, and brings it after the next start.
    private func brokenService() throws -> String? {
        var house = try House.starting(on: disk)
        try house.connects("reader")
        try house.subscribes("reader", "t", .atLeastOnce)
        try house.leaves("reader")
        try house.connects("writer", expiry: 0)
        try house.publishes("writer", "new", .atLeastOnce, to: ["reader"])
        guard house.ledger.owed["reader"] != nil else { return nil }
        var next = try house.restarted()
        try next.connects("reader")
        if next.ledger.sessionPresent["reader"] != true { return "a Session is lost" }
        guard next.ledger.had["reader"]?.contains("new") ?? false else { return "a message is lost" }
        return nil
    }
}
