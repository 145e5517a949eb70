/// What a disk holds, in pages of 4 KiB; zero where nothing was written. A copy costs a pointer a page.
struct Image: Equatable {
    static let pageBytes = 4096

    /// A page that was never written is empty.
    private var pages: [[UInt8]]

    var byteCount: Int { pages.count * Self.pageBytes }

    init(byteCount: Int) {
        precondition(byteCount % Self.pageBytes == 0, "a disk is made of whole pages")
        pages = Array(repeating: [], count: byteCount / Self.pageBytes)
    }

    /// - Precondition: the range lies on the disk.
    func read(_ range: Range<Int>) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(range.count)
        var offset = range.lowerBound
        while offset < range.upperBound {
            let within = offset % Self.pageBytes
            let count = min(Self.pageBytes - within, range.upperBound - offset)
            let page = pages[offset / Self.pageBytes]
            if page.isEmpty {
                bytes.append(contentsOf: repeatElement(0, count: count))
            } else {
                bytes.append(contentsOf: page[within..<within + count])
            }
            offset += count
        }
        return bytes
    }

    /// - Precondition: all of it lies on the disk.
    mutating func write(_ bytes: ArraySlice<UInt8>, at start: Int) {
        var rest = bytes
        var offset = start
        while !rest.isEmpty {
            let within = offset % Self.pageBytes
            let part = rest.prefix(Self.pageBytes - within)
            let number = offset / Self.pageBytes
            if pages[number].isEmpty {
                if part.allSatisfy({ $0 == 0 }) {
                    (rest, offset) = (rest.dropFirst(part.count), offset + part.count)
                    continue
                }
                pages[number] = Array(repeating: 0, count: Self.pageBytes)
            }
            pages[number].replaceSubrange(within..<within + part.count, with: part)
            (rest, offset) = (rest.dropFirst(part.count), offset + part.count)
        }
    }
}
