/// Looks at one segment through a window of its bytes.
struct SegmentScan {
    let name: String
    private let id: UInt64
    private let store: StoreID
    private let size: Int
    private(set) var window: [UInt8] = []
    private var windowStart = 0
    /// Pages that the disk refused to read; they look like zeros.
    private(set) var unreadable: [Range<Int>] = []

    private static let windowBytes = 64 << 10

    init(name: String, id: UInt64, store: StoreID, size: Int) {
        self.name = name
        self.id = id
        self.store = store
        self.size = size
    }

    /// Brings `count` bytes from `offset` on, or as many as there are, into the window; returns where they begin
    /// in it.
    mutating func load(_ offset: Int, _ count: Int, _ reader: inout some StoreReader) -> Int {
        let wanted = min(count, max(size - offset, 0))
        if offset >= windowStart, offset + wanted <= windowStart + window.count {
            return offset - windowStart
        }
        windowStart = offset
        let ahead = min(max(wanted, Self.windowBytes), max(size - offset, 0))
        do {
            window = try reader.read(name, at: offset, count: ahead)
        } catch {
            window = pageByPage(offset, ahead, &reader)
        }
        return 0
    }

    /// The valid batch header at `offset`, if there is one.
    mutating func header(at offset: Int, _ reader: inout some StoreReader) -> BatchHeader? {
        let start = load(offset, BatchHeader.size, &reader)
        do {
            return try BatchHeader(decoding: window, at: start, offset: offset, store: store, segment: id)
        } catch {
            return nil
        }
    }

    /// Where the first valid batch header from `offset` on stands.
    ///
    /// - Complexity: O(bytes up to it)
    mutating func firstBatch(from offset: Int, limit: Int = .max, _ reader: inout some StoreReader) -> Int? {
        var offset = offset
        while offset < min(limit, size) {
            if header(at: offset, &reader) != nil { return offset }
            offset += pageBytes
        }
        return nil
    }

    /// The head of a footer at `offset`, if one stands there.
    mutating func footer(at offset: Int, _ reader: inout some StoreReader) -> Footer.Head? {
        let start = load(offset, Footer.headSize, &reader)
        do {
            return try Footer.head(window, at: start, offset: offset, store: store, segment: id)
        } catch {
            return nil
        }
    }

    /// The first head of a footer from `offset` on.
    ///
    /// - Complexity: O(bytes up to it)
    mutating func firstFooter(
        from offset: Int, limit: Int, _ reader: inout some StoreReader
    ) -> Footer.Head? {
        var offset = offset
        while offset < min(limit, size) {
            if let footer = footer(at: offset, &reader) { return footer }
            offset += pageBytes
        }
        return nil
    }

    /// Whether there is anything but zeros.
    mutating func holdsAnything(_ range: Range<Int>, _ reader: inout some StoreReader) -> Bool {
        var offset = range.lowerBound
        while offset < min(range.upperBound, size) {
            let start = load(offset, pageBytes, &reader)
            if window[start..<min(start + pageBytes, window.count)].contains(where: { $0 != 0 }) {
                return true
            }
            offset += pageBytes
        }
        return false
    }

    private mutating func pageByPage(_ offset: Int, _ count: Int, _ reader: inout some StoreReader) -> [UInt8]
    {
        var bytes: [UInt8] = []
        var place = offset
        while place < offset + count {
            let part = min(pageBytes, offset + count - place)
            do {
                let page = try reader.read(name, at: place, count: part)
                bytes.append(contentsOf: page)
                if page.count < part { return bytes }
            } catch {
                bytes.append(contentsOf: repeatElement(0, count: part))
                if !unreadable.contains(place..<place + part) { unreadable.append(place..<place + part) }
            }
            place += part
        }
        return bytes
    }
}
