import GatewayCore

/// Gets the index of one complete segment from the disk, read by read: its footer or, where that is missing or
/// damaged, what a scan of its batches finds.
struct IndexFetch {
    private let segment: Segment
    private let store: StoreID
    private var phase: Phase
    private var scanned: IndexBuilder
    /// Up to here the scan reads single pages, because the disk refused some of them.
    private var refusedEnd = 0
    /// With all of it: a segment that is not to be read has a minute, and not each of its pages.
    private var patience = Patience.whole

    private enum Phase {
        /// So many bytes of it were asked for.
        case footer(Int)
        case scanning(Range<Int>)
        /// A batch that the scan saw only the beginning of.
        case batch(BatchHeader, at: Int)
    }

    enum Step {
        case read(Range<Int>)
        /// In so many milliseconds.
        case later(Range<Int>, UInt64)
        case found(SegmentIndex)
    }

    /// Enough for most footers.
    private static let firstReadBytes = 64 << 10
    private static let scanBytes = 256 << 10

    /// - Precondition: nothing is appended to the segment any more.
    init(_ segment: Segment, store: StoreID) {
        self.segment = segment
        self.store = store
        phase = .footer(Self.firstReadBytes)
        scanned = IndexBuilder(segment: segment.id, first: segment.first)
    }

    var firstRead: Range<Int> { read }

    /// What to do after a read, or where the disk refused it.
    ///
    /// - Parameter isWritable: the log can be written at present.
    /// - Complexity: O(bytes)
    mutating func answered(_ outcome: DiskCompletion.Outcome, isWritable: Bool, at now: Instant) -> Step {
        var bytes: [UInt8]?
        switch outcome {
        case .read(let read):
            patience.succeeded()
            bytes = read
        case .done: break
        case .failed(let number):
            let refusal = ReadRefusal(errorNumber: number)
            if refusal == .ofTheSystem || !hasElse,
                let pause = patience.refused(refusal, isWritable: isWritable, at: now)
            {
                return .later(read, pause)
            }
        }
        return goOn(bytes)
    }

    /// - Parameter bytes: nil where they are given up.
    private mutating func goOn(_ bytes: [UInt8]?) -> Step {
        switch phase {
        case .footer(let count): footer(bytes ?? [], askedFor: count)
        case .scanning(let range): scan(bytes, range)
        case .batch(let header, let offset): finish(header, at: offset, bytes ?? [])
        }
    }

    /// What is being read.
    private var read: Range<Int> {
        switch phase {
        case .footer(let count): segment.end..<segment.end + count
        case .scanning(let range): range
        case .batch(let header, let offset): offset..<offset + header.totalLength
        }
    }

    /// Something smaller, or else, would do as well as what is being read.
    private var hasElse: Bool {
        switch phase {
        case .footer: true
        case .scanning(let range): range.count > pageBytes
        case .batch: false
        }
    }

    private mutating func footer(_ bytes: [UInt8], askedFor count: Int) -> Step {
        do {
            let head = try Footer.head(bytes, at: 0, offset: segment.end, store: store, segment: segment.id)
            guard head.stretch.first == segment.first else { throw DecodingError.invalidField }
            if head.totalLength > count {
                phase = .footer(head.totalLength)
                return .read(segment.end..<segment.end + head.totalLength)
            }
            return .found(try Footer.index(head, bytes, store: store))
        } catch {
            return scanOn(from: pageBytes)
        }
    }

    private mutating func scanOn(from offset: Int) -> Step {
        guard offset < segment.end else { return .found(scanned.index) }
        let count = offset < refusedEnd ? pageBytes : Self.scanBytes
        let range = offset..<min(offset + count, segment.end)
        phase = .scanning(range)
        return .read(range)
    }

    /// Takes whole batches; what does not verify is passed over as recovery passes over it.
    private mutating func scan(_ bytes: [UInt8]?, _ range: Range<Int>) -> Step {
        guard let bytes else {
            scanned.isPartial = true
            guard range.count > pageBytes else { return scanOn(from: range.upperBound) }
            // One bad page shall not cost its neighbours.
            refusedEnd = range.upperBound
            return scanOn(from: range.lowerBound)
        }
        var place = 0
        while place < bytes.count {
            let offset = range.lowerBound + place
            guard let header = header(in: bytes, at: place, offset: offset),
                header.totalLength <= segment.end - offset
            else {
                scanned.isPartial = true
                place += pageBytes
                continue
            }
            guard header.totalLength <= bytes.count - place else {
                phase = .batch(header, at: offset)
                return .read(offset..<offset + header.totalLength)
            }
            take(header, in: bytes, at: place, offset: offset)
            place += header.totalLength
        }
        guard bytes.count < range.count else { return scanOn(from: range.lowerBound + place) }
        // A file may be shorter than its successor says.
        scanned.isPartial = true
        return .found(scanned.index)
    }

    private mutating func finish(_ header: BatchHeader, at offset: Int, _ bytes: [UInt8]) -> Step {
        take(header, in: bytes, at: 0, offset: offset)
        return scanOn(from: offset + header.totalLength)
    }

    private func header(in bytes: [UInt8], at place: Int, offset: Int) -> BatchHeader? {
        do {
            return try BatchHeader(
                decoding: bytes, at: place, offset: offset, store: store, segment: segment.id)
        } catch {
            return nil
        }
    }

    private mutating func take(_ header: BatchHeader, in bytes: [UInt8], at place: Int, offset: Int) {
        guard header.first >= segment.first, header.verifiesPayload(in: bytes, at: place, store: store)
        else {
            scanned.isPartial = true
            return
        }
        scanned.add(header, at: offset)
        do {
            try header.records(in: bytes, at: place) { scanned.add($0, at: $1) }
        } catch {
            // It verifies, so a newer version wrote it; recovery refuses what must not be skipped.
            scanned.isPartial = true
        }
    }
}
