import GatewayCore

/// Finds out what a store holds after whatever happened to it.
///
/// It reads and syncs, and changes nothing: to recover twice is to recover once. A torn end of the log, which
/// every power cut may leave, is told apart from damage to what was durable: behind damage stands proof that
/// it was (a later batch, a successor's header or a checkpoint), behind a torn end stands nothing.
package struct Recovery<Reader: StoreReader> {
    private var reader: Reader
    private let store: StoreID
    private var log: RecoveredLog
    /// Every Record up to here comes from the checkpoint.
    private var checkpoint = Position.zero
    private var ends: [UInt64: SegmentEnd] = [:]
    /// Segments that were synced.
    private var synced: Set<UInt64> = []
    /// The segments that were complete when the checkpoint was written.
    private var rows: [UInt64: SegmentRow] = [:]
    /// Of the segment that is being read, unless the checkpoint knew it as complete.
    private var index: IndexBuilder?

    /// Streams the Records of the store to `body`: those of the newest valid checkpoint with `Position.zero`,
    /// then the log's after it, in order. A Record that is damaged is left out and reported.
    ///
    /// - Parameter sealed: told of each stretch that was not complete when the checkpoint was written, behind its
    ///   last Record, with the Sessions whose queues `Journal.index` will answer for: `StorageEvent.sealed` as it
    ///   was or would have been.
    /// - Complexity: O(checkpoint + segments it does not cover); of those it covers, only the names and sizes
    package static func recover(
        _ reader: inout Reader, _ body: (Record, Position) -> Void,
        sealed: (Stretch, [SessionID]) -> Void = { _, _ in }
    ) throws(RecoveryError) -> RecoveredLog {
        let names = try Self.read { () throws(StoreReadFailure) in
            try reader.makeDirectoryDurable()
            return try reader.names().sorted()
        }
        let (store, formatIsDamaged) = try identity(names, &reader)
        var recovery = Recovery(reader, store)
        recovery.log.report.formatIsDamaged = formatIsDamaged
        try recovery.readCheckpoint(names, body)
        try recovery.readSegments(names, body, sealed)
        recovery.log.last = max(recovery.log.last, recovery.checkpoint)
        recovery.log.tail.last = recovery.log.last
        for name in names where name.hasSuffix(StoreFile.temporarySuffix) {
            guard let file = StoreFile(name: String(name.dropLast(StoreFile.temporarySuffix.count))) else {
                continue
            }
            recovery.log.report.unfinished.append(name)
            // Its number is not given again: its pages may turn up in another file.
            if case .merged(let id) = file { recovery.log.passNumber(id) }
        }
        reader = recovery.reader
        return recovery.log
    }

    private init(_ reader: Reader, _ store: StoreID) {
        self.reader = reader
        self.store = store
        log = RecoveredLog(
            store: store, last: .zero, clock: Instant(milliseconds: 0), boot: 0, anchor: nil, uptime: nil,
            unproven: nil,
            tail: SegmentEnd(segment: 0, offset: 0, last: .zero), nextSegment: 1, segments: [],
            checkpoints: [],
            wasCleanShutdown: true, report: RecoveryReport())
    }

    private static func read<T>(_ body: () throws(StoreReadFailure) -> T) throws(RecoveryError) -> T {
        do { return try body() } catch { throw .unreadable(error) }
    }

    // MARK: Whose store it is

    /// The store's id from `FORMAT` or, when that is damaged, from a segment's header.
    private static func identity(
        _ names: [String], _ reader: inout Reader
    ) throws(RecoveryError) -> (StoreID, formatIsDamaged: Bool) {
        let name = StoreFile.format.name
        if names.contains(name), let bytes = readable(name, 0, pageBytes, &reader) {
            do {
                return (try StoreFormat(decoding: bytes).store, false)
            } catch .unknownFeatures(let bits) {
                throw .unknownFeatures(file: name, bits: bits)
            } catch {
                // Damaged: the segments know it too.
            }
        }
        for name in names.reversed() {
            guard case .segment(let id) = StoreFile(name: name),
                let bytes = readable(name, 0, pageBytes, &reader)
            else { continue }
            do {
                return (try SegmentHeader(decoding: bytes, segment: id).store, true)
            } catch .unknownFeatures(let bits) {
                throw .unknownFeatures(file: name, bits: bits)
            } catch {
                continue
            }
        }
        throw .noStore
    }

    /// nil where the disk refuses to read, which is damage like any other.
    private static func readable(_ name: String, _ offset: Int, _ count: Int, _ reader: inout Reader)
        -> [UInt8]?
    {
        do { return try reader.read(name, at: offset, count: count) } catch { return nil }
    }

    /// nil for what is no file that could be read.
    private mutating func size(of name: String) throws(RecoveryError) -> Int? {
        do { return try reader.size(of: name) } catch {
            if error.isDamage { return nil }
            throw .unreadable(error)
        }
    }

    // MARK: Checkpoint

    private mutating func readCheckpoint(
        _ names: [String], _ body: (Record, Position) -> Void
    ) throws(RecoveryError) {
        for name in names.reversed() {
            guard case .checkpoint(let number) = StoreFile(name: name) else { continue }
            let position = Position(number)
            // Once to see that it is whole, and only then to believe it.
            guard let header = try walkCheckpoint(name, position, { _, _ in }) else {
                log.report.setAside.append(name)
                continue
            }
            let size = try size(of: name) ?? 0
            log.checkpoints.insert(.init(position: position, bytes: size), at: 0)
            guard log.checkpoints.count == 1 else { continue }
            checkpoint = position
            log.clock = max(log.clock, header.clock)
            log.boot = max(log.boot, header.boot)
            log.nextSegment = max(log.nextSegment, header.nextSegment)
            log.anchor = header.anchor
            log.wear = header.wear
            log.uptime = header.uptime
            log.unproven = header.unproven
            for row in header.segments {
                rows[row.segment] = row
                ends[row.segment] = SegmentEnd(segment: row.segment, offset: row.end, last: row.last)
            }
            guard try walkCheckpoint(name, position, body) != nil else {
                // It was whole a moment ago. Half of it is a state that never was; the next start sees more.
                throw .unreadable(StoreReadFailure(name: name, errorNumber: inputOutputError))
            }
        }
    }

    /// nil when the file is not whole; what was given to `body` until then is not to be believed.
    private mutating func walkCheckpoint(
        _ name: String, _ position: Position, _ body: (Record, Position) -> Void
    ) throws(RecoveryError) -> CheckpointHeader? {
        let seed = CheckpointChunk.seed(store, position)
        guard let size = try size(of: name) else { return nil }
        var header: CheckpointHeader?
        var offset = 0
        var index: UInt32 = 0
        var count: UInt64 = 0
        do {
            while true {
                guard let bytes = Self.readable(name, offset, CheckpointChunk.headSize, &reader) else {
                    return nil
                }
                let head = try CheckpointChunk.head(bytes, seed: seed)
                offset += CheckpointChunk.headSize
                guard head.index == index, head.length <= size - offset,
                    let payload = Self.readable(name, offset, head.length, &reader),
                    payload.count == head.length,
                    Checksum.of(payload, 0..<payload.count, seed: seed) == head.checksum
                else { return nil }
                offset += head.length
                index += 1
                switch CheckpointChunk.Kind(rawValue: head.kind) {
                case .header:
                    header = try CheckpointHeader(decoding: payload)
                    guard header?.position == position else { return nil }
                case .records:
                    var fields = ByteReader(payload)
                    while !fields.isAtEnd {
                        let record = try RecordCodec.nextRecord(in: payload, &fields)
                        count += 1
                        guard let record else { continue }
                        // What has not happened yet is owed to nobody.
                        if case .queue(let queue) = record, queue.names(beyond: position) { return nil }
                        body(record, .zero)
                    }
                case .wear:
                    header?.wear = try Wear(decoding: payload)
                case .end:
                    var fields = ByteReader(payload)
                    return try fields.fixed(UInt64.self) == count ? header : nil
                case nil:
                    guard head.kind & CheckpointChunk.ignorableBit != 0 else {
                        throw RecoveryError.unknownFeatures(file: name, bits: UInt32(head.kind))
                    }
                }
            }
        } catch let error as DecodingError {
            if case .unknownRecordType(let type) = error {
                throw .unknownRecordType(file: name, type: type)
            }
            return nil
        } catch let error as RecoveryError {
            throw error
        } catch {
            return nil
        }
    }

    // MARK: Segments

    private mutating func readSegments(
        _ names: [String], _ body: (Record, Position) -> Void, _ sealed: (Stretch, [SessionID]) -> Void
    ) throws(RecoveryError) {
        let found = try findSegments(names, besides: findMerged(names))
        // A merged file says itself where it ends, and no other has its number.
        let merged = Set(found.filter(\.isMerged).map(\.id))
        for segment in found {
            guard let header = segment.header, header.merged == nil,
                !merged.contains(header.predecessor.segment)
            else { continue }
            ends[header.predecessor.segment] = header.predecessor
        }
        for (place, segment) in found.enumerated() {
            if let covered = segment.covered {
                take(covered, segment)
                continue
            }
            let isNew = rows[segment.id] == nil
            index = isNew ? IndexBuilder(segment: segment.id, first: .zero.next) : nil
            let count = log.segments.count
            try readSegment(segment, later: found[(place + 1)...], body)
            if log.segments.count > count, let stretch = log.segments.last?.stretch, let index {
                sealed(stretch, index.index.sessions)
            }
        }
        if !log.report.tornTails.isEmpty { log.wasCleanShutdown = false }
    }

    /// All there are, in rising order of their positions.
    ///
    /// - Parameter merged: files each of which takes the place of the segments that begin within it: these are only
    ///   there because the power failed before they were deleted.
    private mutating func findSegments(
        _ names: [String], besides merged: [MergedFile]
    ) throws(RecoveryError) -> [Found] {
        var rest = merged[...]
        var found: [Found] = []
        for segment in try findPlain(names) {
            if let first = first(of: segment) {
                if merged.contains(where: { $0.stretch.contains(first) }) {
                    log.report.unfinished.append(segment.name)
                    continue
                }
                while let next = rest.first, next.stretch.first < first {
                    found.append(next.found)
                    rest.removeFirst()
                }
            }
            found.append(segment)
        }
        return found + rest.map(\.found)
    }

    private mutating func first(of segment: Found) -> Position? {
        if let covered = segment.covered { return covered.first }
        if let header = segment.header { return header.predecessor.last.next }
        var scan = SegmentScan(name: segment.name, id: segment.id, store: store, size: segment.size)
        return scan.firstBatch(from: pageBytes, &reader).flatMap { scan.header(at: $0, &reader)?.first }
    }

    /// In rising order of their positions. Of two that overlap, the one with the higher number holds all that is
    /// still owed.
    private mutating func findMerged(_ names: [String]) throws(RecoveryError) -> [MergedFile] {
        var merged: [MergedFile] = []
        for name in names.reversed() {
            guard case .merged(let id) = StoreFile(name: name) else { continue }
            log.passNumber(id)
            guard let size = try size(of: name), let file = try readMerged(name, id, size) else {
                log.report.setAside.append(name)
                continue
            }
            let isReplaced = merged.contains {
                $0.stretch.first <= file.stretch.last && file.stretch.first <= $0.stretch.last
            }
            if isReplaced { log.report.unfinished.append(name) } else { merged.append(file) }
        }
        return merged.sorted { $0.stretch.first < $1.stretch.first }
    }

    /// By its header, or where that is damaged by the checkpoint or its footer; nil when nothing tells.
    private mutating func readMerged(
        _ name: String, _ id: UInt64, _ size: Int
    ) throws(RecoveryError) -> MergedFile? {
        var header: SegmentHeader?
        if let page = Self.readable(name, 0, pageBytes, &reader) {
            do { header = try SegmentHeader(decoding: page, segment: id) } catch .unknownFeatures(let bits) {
                throw .unknownFeatures(file: name, bits: bits)
            } catch {}
        }
        var place: (stretch: Stretch, end: UInt64)?
        var scan = SegmentScan(name: name, id: id, store: store, size: size)
        if let header {
            guard header.store == store, let merged = header.merged else { return nil }
            place = (Stretch(first: header.predecessor.last.next, last: merged.last), merged.end)
        } else if let row = rows[id], let first = row.first {
            place = (Stretch(first: first, last: row.last), row.end)
        } else if let footer = scan.firstFooter(from: pageBytes, limit: size, &reader) {
            place = (footer.stretch, UInt64(footer.end))
        }
        guard let (stretch, end) = place else { return nil }
        ends[id] = SegmentEnd(segment: id, offset: end, last: stretch.last)
        var covered: Segment?
        if stretch.last <= checkpoint {
            if header == nil { log.report.damaged.append(.init(file: name, bytes: 0..<pageBytes)) }
            let row = SegmentRow(
                segment: id, first: stretch.first, last: stretch.last, end: end, capacity: UInt64(size))
            covered = Segment(row, first: stretch.first, size: size)
        }
        let found = Found(id: id, name: name, size: size, header: header, covered: covered)
        return MergedFile(found: found, stretch: stretch)
    }

    /// In rising order of their numbers.
    private mutating func findPlain(_ names: [String]) throws(RecoveryError) -> [Found] {
        var found: [Found] = []
        // The newest is always looked into: it may hold the mark of a clean stop.
        let newest = names.last { if case .segment = StoreFile(name: $0) { true } else { false } }
        // Those that a later one names, whose header is durable, or the checkpoint.
        var named = Set(ends.keys)
        // Names sort as their numbers do.
        for name in names.reversed() {
            let id: UInt64
            switch StoreFile(name: name) {
            case .segment(let number): id = number
            case .free(let number):
                log.passNumber(number)
                if let size = try size(of: name) {
                    log.free.append(FreeSegment(id: number, bytes: size / pageBytes * pageBytes))
                } else {
                    log.report.setAside.append(name)
                }
                continue
            case .reserve:
                log.hasReserve = try size(of: name) != nil
                if !log.hasReserve { log.report.setAside.append(name) }
                continue
            case .format, .checkpoint, .merged, .mergedPart, nil: continue
            }
            log.passNumber(id)
            // What is no file cannot be synced either.
            guard let size = try size(of: name) else {
                log.report.setAside.append(name)
                continue
            }
            if !named.contains(id) { try makeDurable(name, id) }
            if name != newest, let row = rows[id], let first = row.first, row.last <= checkpoint {
                let covered = Segment(row, first: first, size: size)
                found.append(Found(id: id, name: name, size: size, header: nil, covered: covered))
                continue
            }
            var header: SegmentHeader?
            if let page = Self.readable(name, 0, pageBytes, &reader) {
                do { header = try SegmentHeader(decoding: page, segment: id) } catch .unknownFeatures(
                    let bits)
                {
                    throw .unknownFeatures(file: name, bits: bits)
                } catch {}
            }
            // What is left of a merged file that was never finished may lie where a new segment was to get its first page.
            if header?.merged != nil { header = nil }
            if let header, header.store != store {
                log.report.setAside.append(name)
            } else {
                if let header { named.insert(header.predecessor.segment) }
                found.append(Found(id: id, name: name, size: size, header: header, covered: nil))
            }
        }
        log.free.reverse()
        return found.reversed()
    }

    /// Syncs a file of which all may be in the cache alone, its header too, before anything of it is believed: a sync
    /// that failed in the process before this one has left what can be read and will never be written.
    private mutating func makeDurable(_ name: String, _ id: UInt64) throws(RecoveryError) {
        guard synced.insert(id).inserted else { return }
        try Self.read { () throws(StoreReadFailure) in try reader.makeDurable(name) }
    }

    private mutating func take(_ segment: Segment, _ found: Found) {
        if let end = ends[segment.id].map({ Int(clamping: $0.offset) }), found.size < end {
            log.report.damaged.append(.init(file: found.name, bytes: found.size..<end))
        }
        log.segments.append(segment)
        log.segments[log.segments.count - 1].isMerged = found.isMerged
        log.last = max(log.last, segment.last)
        log.tail = SegmentEnd(segment: segment.id, offset: UInt64(segment.end), last: log.last)
    }

    private mutating func readSegment(
        _ found: Found, later: ArraySlice<Found>, _ body: (Record, Position) -> Void
    ) throws(RecoveryError) {
        let end = ends[found.id]
        if end == nil { try makeDurable(found.name, found.id) }
        var scan = SegmentScan(name: found.name, id: found.id, store: store, size: found.size)
        guard found.header != nil || scan.firstBatch(from: pageBytes, &reader) != nil else {
            // A power cut while it was created leaves at most its first page, and no successor names it.
            if found.size <= pageBytes, end == nil {
                log.report.unfinished.append(found.name)
            } else {
                log.report.setAside.append(found.name)
            }
            return
        }
        if let header = found.header {
            noteLoss(before: header.predecessor.last.next, body)
            log.last = max(log.last, header.predecessor.last)
            noteBoot(header.boot, header.uptime)
            log.clock = max(log.clock, header.clock)
            log.wasCleanShutdown = false
        } else {
            log.report.damaged.append(.init(file: found.name, bytes: 0..<pageBytes))
        }

        var segment = Segment(
            id: found.id, first: startOfSegment(found, &scan), capacity: found.size, fileBytes: found.size)
        segment.isMerged = found.isMerged
        let limit = end.map { Int(clamping: $0.offset) } ?? found.size
        let proven = end.map(\.last) ?? proof(by: later)
        // Where no header names the end, the next segment still says which position it begins with: a batch that
        // was given up because of an error, and written again there, is none, however intact it is.
        let cut = end?.last ?? later.lazy.compactMap(\.header).first?.predecessor.last
        let bounds = Bounds(
            limit: limit, isLimitKnown: end != nil, proven: proven, cut: cut,
            isRecycled: found.header?.isRecycled ?? true)
        try readBatches(&scan, &segment, bounds, body)
        log.report.damaged += scan.unreadable.map { .init(file: found.name, bytes: $0) }
        // A file may be shorter than its successor says, and bytes that are not there take no space.
        segment.end = min(segment.end, max(found.size, pageBytes))
        if let end {
            segment.end = max(min(limit, found.size), pageBytes)
            segment.last = max(segment.last, end.last)
            noteLoss(before: end.last.next, body)
            log.last = max(log.last, end.last)
        }
        log.segments.append(segment)
        log.tail = SegmentEnd(segment: segment.id, offset: UInt64(segment.end), last: log.last)
    }

    /// The position that the first Record of the segment has.
    private mutating func startOfSegment(_ found: Found, _ scan: inout SegmentScan) -> Position {
        if let header = found.header { return header.predecessor.last.next }
        guard let offset = scan.firstBatch(from: pageBytes, &reader),
            let batch = scan.header(at: offset, &reader)
        else { return log.last.next }
        return max(batch.first, Position(1))
    }

    /// Up to where later segments and the checkpoint prove that Records were durable.
    private mutating func proof(by later: ArraySlice<Found>) -> Position {
        var proven = checkpoint
        for found in later {
            if let header = found.header {
                proven = max(proven, header.predecessor.last)
            }
            var scan = SegmentScan(name: found.name, id: found.id, store: store, size: found.size)
            if let offset = scan.firstBatch(from: pageBytes, &reader),
                let batch = scan.header(at: offset, &reader)
            {
                proven = max(proven, batch.durableBefore)
            }
        }
        return proven
    }

    private mutating func readBatches(
        _ scan: inout SegmentScan, _ segment: inout Segment, _ bounds: Bounds,
        _ body: (Record, Position) -> Void
    ) throws(RecoveryError) {
        let limit = bounds.limit
        var offset = pageBytes
        while offset < limit {
            if !bounds.isLimitKnown, let cut = bounds.cut, log.last >= cut { return }
            let header = scan.header(at: offset, &reader)
            if let header, header.first >= segment.first, header.last <= bounds.cut ?? header.last,
                header.totalLength <= limit - offset, try read(header, at: offset, &scan, body)
            {
                segment.add(header, at: offset)
                offset += header.totalLength
                continue
            }
            if !bounds.isLimitKnown, header == nil, scan.footer(at: offset, &reader) != nil { return }
            // A header that verifies tells where the next one is, so that nothing inside its payload is
            // mistaken for one.
            var next = offset + pageBytes
            if let header, header.totalLength <= limit - offset { next = offset + header.totalLength }
            let following = scan.firstBatch(from: next, limit: limit, &reader)
            let expected = log.last.next
            if following == nil, !bounds.isLimitKnown,
                let footer = scan.firstFooter(from: next, limit: limit, &reader),
                footer.stretch.last >= expected
            {
                // It is only written behind what is durable.
                log.report.damaged.append(.init(file: scan.name, bytes: offset..<footer.end))
                segment.end = footer.end
                segment.last = max(segment.last, footer.stretch.last)
                noteLoss(before: footer.stretch.last.next, body)
                log.last = footer.stretch.last
                return
            }
            let followingHeader = following.flatMap { scan.header(at: $0, &reader) }
            let wasDurable =
                bounds.isLimitKnown || bounds.proven >= expected
                || (followingHeader.map { $0.durableBefore >= expected } ?? false)
            guard wasDurable else {
                // In a file that was another segment only a header that verifies tells a torn batch from what was
                // there before.
                if bounds.isRecycled ? header != nil : scan.holdsAnything(offset..<limit, &reader) {
                    log.report.tornTails.append(.init(file: scan.name, bytes: offset..<limit))
                }
                return
            }
            log.report.damaged.append(.init(file: scan.name, bytes: offset..<(following ?? limit)))
            segment.end = following ?? limit
            offset = following ?? limit
        }
    }

    /// Delivers a batch; false when it does not verify.
    private mutating func read(
        _ header: BatchHeader, at offset: Int, _ scan: inout SegmentScan, _ body: (Record, Position) -> Void
    ) throws(RecoveryError) -> Bool {
        // What the checkpoint stands for is only found again, and read where its index is not known.
        if header.last > checkpoint || index != nil {
            let start = scan.load(offset, header.totalLength, &reader)
            let isIntact = header.verifiesPayload(in: scan.window, at: start, store: store)
            guard isIntact || header.last <= checkpoint else { return false }
            var records: [(Record, Position)] = []
            do {
                if isIntact { try header.records(in: scan.window, at: start) { records.append(($0, $1)) } }
            } catch .unknownRecordType(let type) {
                throw .unknownRecordType(file: scan.name, type: type)
            } catch {
                guard header.last <= checkpoint else { return false }
                records = []
            }
            // What no batch ever held was elided.
            noteLoss(before: min(header.first, header.durableBefore.next), body)
            if header.last > checkpoint { log.wear.commit(header.totalLength, at: header.clock) }
            index?.add(header, at: offset)
            for (record, position) in records {
                index?.add(record, at: position)
                guard position > log.last, position > checkpoint else { continue }
                log.wear.note(record)
                body(record, position)
            }
        }
        noteBoot(header.boot, nil)
        log.last = max(log.last, header.last)
        log.clock = max(log.clock, header.clock)
        log.wasCleanShutdown = header.isCleanShutdown
        // Batches before the checkpoint are met again, and tell nothing new.
        if header.wall.isTrusted, log.anchor.map({ $0.clock < header.clock }) ?? true {
            log.anchor = WallAnchor(clock: header.clock, wallMilliseconds: header.wall.milliseconds)
            log.unproven = nil
        }
        return true
    }

    /// A boot of the gateway began behind what was read until now.
    private mutating func noteBoot(_ boot: UInt32, _ uptime: Uptime?) {
        guard boot > log.boot else { return }
        let isSameMachineBoot = uptime != nil && uptime?.boot == log.uptime?.boot
        if log.boot > 0, !isSameMachineBoot, log.unproven == nil {
            log.unproven = UnprovenStart(after: log.last, since: log.clock)
        }
        log.boot = boot
        log.uptime = uptime
    }

    /// The log goes on at `position`: what should have come before and did not is lost. Below the checkpoint,
    /// segments that nobody needs any more have been deleted.
    private mutating func noteLoss(before position: Position, _ body: (Record, Position) -> Void) {
        let first = max(log.last, checkpoint).number + 1
        guard position.number > first else { return }
        log.report.lost.append(first...position.number - 1)
        let last = Position(position.number - 1)
        body(.lost(through: last, count: last.number - first + 1), .zero)
    }
}

/// EIO.
private let inputOutputError: Int32 = 5
