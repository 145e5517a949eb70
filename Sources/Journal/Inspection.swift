import GatewayCore

/// A store looked at byte by byte, without changing anything: what its files hold, and what in them is damaged.
///
/// Recovery reads no more than it needs; this reads every batch of every segment, also those that a checkpoint stands
/// for. A gateway may be running on the store meanwhile: what it is just writing looks like an unfinished write.
package struct Inspection: Sendable {
    /// What a start would find.
    package private(set) var log: RecoveredLog
    /// In the order of their names.
    package private(set) var files: [File] = []
    package private(set) var bytes = ByteCount()
    /// Batches that hold Records, each written and synced as one.
    package private(set) var commits = 0
    package private(set) var records = RecordCount()
    /// Clocks of the first and the last batch that is left.
    package private(set) var span: (first: Instant, last: Instant)?
    /// Committed bytes that do not verify, recovery's findings included.
    package private(set) var damaged: [RecoveryReport.ByteRange] = []

    package struct File: Hashable, Sendable {
        package var name: String
        package var bytes: Int
    }

    /// Where the bytes of the files go.
    package struct ByteCount: Hashable, Sendable {
        package var segmentHeaders = 0
        package var batchHeaders = 0
        package var records = 0
        package var padding = 0
        package var footers = 0
        /// Damaged, allocated beforehand, or of a write that a power cut tore.
        package var otherInSegments = 0
        package var checkpoints = 0
        package var otherFiles = 0

        package var total: Int {
            segmentHeaders + batchHeaders + records + padding + footers + otherInSegments + checkpoints
                + otherFiles
        }
    }

    /// How many Records of each kind there are, and their bytes.
    package struct RecordCount: Hashable, Sendable {
        package private(set) var kinds: [String: Kind] = [:]
        package private(set) var messages = 0
        /// Of the messages in them, and of their payloads alone.
        package private(set) var messageBytes = 0
        package private(set) var payloadBytes = 0

        package struct Kind: Hashable, Sendable {
            package var count = 0
            package var bytes = 0
        }

        mutating func add(_ record: Record?, bytes: Int) {
            kinds[record?.kindName ?? "empty", default: Kind()].count += 1
            kinds[record?.kindName ?? "empty", default: Kind()].bytes += bytes
            guard case .message(let message) = record else { return }
            messages += 1
            messageBytes += message.message.bytes.count
            payloadBytes += message.message.payload.count
        }
    }

    /// A Record and where it stands.
    package struct Found: Sendable {
        package var record: Record
        package var position: Position
        package var file: String
        /// Of its batch.
        package var offset: Int
    }

    /// Whether everything that was durable is still there.
    package var isWhole: Bool { damaged.isEmpty && !log.report.isDamaged }

    /// Reads all there is.
    ///
    /// - Parameters:
    ///   - recovered: gets what a start would replay: the checkpoint's Records and those behind it.
    ///   - found: gets every Record in the segments, in order, also those that the checkpoint stands for.
    /// - Complexity: O(bytes of the store)
    package static func inspect(
        _ reader: inout some StoreReader, recovered: (Record, Position) -> Void = { _, _ in },
        found body: (Found) -> Void = { _ in }
    ) throws(RecoveryError) -> Inspection {
        var quiet = WithoutSync(reader: reader)
        defer { reader = quiet.reader }
        var inspection = Inspection(log: try Recovery.recover(&quiet, recovered))
        do throws(StoreReadFailure) {
            try inspection.list(&quiet)
            try inspection.walk(&quiet, body)
        } catch {
            throw .unreadable(error)
        }
        return inspection
    }

    private init(log: RecoveredLog) {
        self.log = log
        damaged = log.report.damaged
    }

    private mutating func list(_ reader: inout some StoreReader) throws(StoreReadFailure) {
        for name in try reader.names().sorted() {
            guard let kind = StoreFile(name: name) else { continue }
            let size: Int
            do { size = try reader.size(of: name) } catch {
                guard error.isDamage else { throw error }
                size = 0
            }
            files.append(File(name: name, bytes: size))
            switch kind {
            case .format, .free, .reserve, .mergedPart: bytes.otherFiles += size
            case .checkpoint: bytes.checkpoints += size
            case .segment(let id), .merged(let id):
                if !log.segments.contains(where: { $0.id == id }) { bytes.otherFiles += size }
            }
        }
    }

    private mutating func walk(
        _ reader: inout some StoreReader, _ body: (Found) -> Void
    ) throws(StoreReadFailure) {
        for segment in log.segments {
            let name = segment.file.name
            let size = try reader.size(of: name)
            var scan = SegmentScan(name: name, id: segment.id, store: log.store, size: size)
            bytes.segmentHeaders += min(size, pageBytes)
            if !hasHeader(segment, &scan, &reader) { noteDamage(name, 0..<min(size, pageBytes)) }
            var read = pageBytes
            var offset = pageBytes
            while offset < min(segment.end, size) {
                if let length = walkBatch(at: offset, &scan, &reader, body) {
                    read += length
                    offset += length
                } else {
                    let next =
                        scan.firstBatch(from: offset + pageBytes, limit: segment.end, &reader)
                        ?? min(segment.end, size)
                    noteDamage(name, offset..<next)
                    offset = next
                }
            }
            read += footerLength(segment, size, &scan, &reader)
            bytes.otherInSegments += max(size - read, 0)
        }
    }

    private func hasHeader(
        _ segment: Segment, _ scan: inout SegmentScan, _ reader: inout some StoreReader
    ) -> Bool {
        let start = scan.load(0, pageBytes, &reader)
        do {
            let page = Array(scan.window[start..<min(start + pageBytes, scan.window.count)])
            return try SegmentHeader(decoding: page, segment: segment.id).store == log.store
        } catch {
            return false
        }
    }

    /// One that does not verify costs a scan of its segment and is no damage: it says nothing that the batches do not.
    private mutating func footerLength(
        _ segment: Segment, _ size: Int, _ scan: inout SegmentScan, _ reader: inout some StoreReader
    ) -> Int {
        guard segment.end < size else { return 0 }
        let start = scan.load(segment.end, Footer.headSize, &reader)
        do {
            let head = try Footer.head(
                scan.window, at: start, offset: segment.end, store: log.store, segment: segment.id)
            bytes.footers += head.totalLength
            return head.totalLength
        } catch {
            return 0
        }
    }

    /// - Returns: the length of the batch at `offset`; nil when it does not verify.
    private mutating func walkBatch(
        at offset: Int, _ scan: inout SegmentScan, _ reader: inout some StoreReader, _ body: (Found) -> Void
    ) -> Int? {
        guard let header = scan.header(at: offset, &reader) else { return nil }
        let start = scan.load(offset, header.totalLength, &reader)
        guard header.verifiesPayload(in: scan.window, at: start, store: log.store) else { return nil }
        var count = RecordCount()
        swap(&count, &records)
        defer { swap(&count, &records) }
        do {
            try header.frames(in: scan.window, at: start) { record, position, length in
                count.add(record, bytes: length)
                if let record {
                    body(Found(record: record, position: position, file: scan.name, offset: offset))
                }
            }
        } catch {
            return nil
        }
        bytes.batchHeaders += BatchHeader.size
        bytes.records += Int(header.payloadLength)
        bytes.padding += header.totalLength - BatchHeader.size - Int(header.payloadLength)
        if header.recordCount > 0 { commits += 1 }
        span = (span?.first ?? header.clock, header.clock)
        return header.totalLength
    }

    /// Stretches of Records that somebody waits for and that are in no file any more, although the checkpoint knows them:
    /// a segment is gone as a whole. A start finds that only as it reads them.
    ///
    /// - Parameter state: what the recovered Records come to.
    /// - Complexity: O(state · log segments)
    package func missing(owedBy state: some CheckpointSource) -> [Stretch] {
        let there = log.stretches
        func isThere(_ stretch: Stretch) -> Bool {
            let next = there.partitioningIndex { $0.last >= stretch.first }
            return next < there.count && there[next].first <= stretch.last
        }
        var missing: Set<Stretch> = []
        state.snapshot { record in
            guard case .queue(let queue) = record else { return }
            let named = queue.entries + queue.tail + queue.strays.map(\.entry)
            let wanted =
                queue.pages.filter { $0.waitingCount > 0 }.map(\.stretch)
                + named.compactMap { $0.position.map { Stretch(first: $0, last: $0) } }
            for stretch in wanted where !isThere(stretch) { missing.insert(stretch) }
        }
        return missing.sorted { $0.first < $1.first }
    }

    private mutating func noteDamage(_ file: String, _ range: Range<Int>) {
        // Recovery has told already of what it read itself.
        guard !damaged.contains(where: { $0.file == file && $0.bytes.overlaps(range) }) else { return }
        damaged.append(.init(file: file, bytes: range))
    }
}

/// Reads as another reader does, and leaves what it reads as durable as it is.
private struct WithoutSync<Reader: StoreReader>: StoreReader {
    var reader: Reader

    mutating func names() throws(StoreReadFailure) -> [String] { try reader.names() }
    mutating func size(of name: String) throws(StoreReadFailure) -> Int { try reader.size(of: name) }
    mutating func read(_ name: String, at offset: Int, count: Int) throws(StoreReadFailure) -> [UInt8] {
        try reader.read(name, at: offset, count: count)
    }
    mutating func makeDurable(_ name: String) throws(StoreReadFailure) {}
    mutating func makeDirectoryDurable() throws(StoreReadFailure) {}
}

extension BatchHeader {
    /// The Records of a payload that has been verified, each with its position and its length on disk; nil for one
    /// that was never written or is of an unknown type that may be ignored.
    ///
    /// - Complexity: O(bytes)
    fileprivate func frames(
        in bytes: [UInt8], at start: Int, _ body: (Record?, Position, Int) -> Void
    ) throws(DecodingError) {
        let start = start + Self.size
        guard start <= bytes.count, Int(payloadLength) <= bytes.count - start else { throw .truncated }
        var reader = ByteReader(bytes, start..<start + Int(payloadLength))
        for index in 0..<UInt64(recordCount) {
            let before = reader.offset
            let record = try RecordCodec.nextRecord(in: bytes, &reader)
            body(record, Position(first.number + index), reader.offset - before)
        }
        guard reader.isAtEnd else { throw .trailingBytes }
    }
}
