import CChecksum

/// What bytes read from disk can be that no writer of ours wrote. Decoding never traps and never believes a
/// length before it has looked at what is there.
package enum DecodingError: Error, Hashable, Sendable {
    /// A field reaches beyond the bytes that are there.
    case truncated
    /// An integer of more than ten bytes or 64 bits.
    case overlongInteger
    /// A field holds what its type cannot, or a rule forbids.
    case invalidField
    /// A Record was decoded and bytes were left over.
    case trailingBytes
    /// A Record of a type that this version does not know and must not skip.
    case unknownRecordType(UInt8)
    case wrongMagic
    case wrongChecksum
    /// Written by a version with features that this one does not have.
    case unknownFeatures(UInt32)
}

/// Reads the fields of one stretch of bytes from front to back.
struct ByteReader {
    private let bytes: [UInt8]
    private(set) var offset: Int
    /// First byte that is no longer ours.
    private let end: Int

    /// - Precondition: `range` lies within `bytes`.
    init(_ bytes: [UInt8], _ range: Range<Int>) {
        precondition(range.upperBound <= bytes.count, "a reader stays within its bytes")
        self.bytes = bytes
        self.offset = range.lowerBound
        self.end = range.upperBound
    }

    init(_ bytes: [UInt8]) { self.init(bytes, 0..<bytes.count) }

    var remaining: Int { end - offset }
    var isAtEnd: Bool { offset == end }

    mutating func byte() throws(DecodingError) -> UInt8 {
        guard offset < end else { throw .truncated }
        defer { offset += 1 }
        return bytes[offset]
    }

    /// An unsigned LEB128 integer: seven bits a byte, the lowest first.
    mutating func integer() throws(DecodingError) -> UInt64 {
        var value: UInt64 = 0
        var shift: UInt64 = 0
        while true {
            let next = try byte()
            let bits = UInt64(next & 0x7F)
            guard shift < 63 || (shift == 63 && bits <= 1) else { throw .overlongInteger }
            value |= bits << shift
            if next & 0x80 == 0 { return value }
            shift += 7
        }
    }

    mutating func integer<T: FixedWidthInteger>(as type: T.Type) throws(DecodingError) -> T {
        guard let value = T(exactly: try integer()) else { throw .invalidField }
        return value
    }

    /// A length that is covered by what remains.
    mutating func length() throws(DecodingError) -> Int {
        let length = try integer()
        guard length <= UInt64(remaining) else { throw .truncated }
        return Int(length)
    }

    mutating func take(_ count: Int) throws(DecodingError) -> ArraySlice<UInt8> {
        guard count >= 0, count <= remaining else { throw .truncated }
        defer { offset += count }
        return bytes[offset..<offset + count]
    }

    /// Bytes with their length before them.
    mutating func lengthPrefixed() throws(DecodingError) -> ArraySlice<UInt8> { try take(try length()) }

    /// A fixed-width integer, lowest byte first.
    mutating func fixed<T: FixedWidthInteger>(_ type: T.Type) throws(DecodingError) -> T {
        let size = T.bitWidth / 8
        guard size <= remaining else { throw .truncated }
        var value: T = 0
        for i in (0..<size).reversed() { value = value << 8 | T(truncatingIfNeeded: bytes[offset + i]) }
        offset += size
        return value
    }
}

extension [UInt8] {
    /// Appends an unsigned LEB128 integer.
    mutating func append(integer: UInt64) {
        var rest = integer
        while rest >= 0x80 {
            append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        append(UInt8(rest))
    }

    mutating func append(lengthPrefixed bytes: some Collection<UInt8>) {
        append(integer: UInt64(bytes.count))
        if !bytes.isEmpty { append(contentsOf: bytes) }
    }

    /// Appends a fixed-width integer, lowest byte first.
    mutating func append<T: FixedWidthInteger>(fixed value: T) {
        for i in 0..<T.bitWidth / 8 { append(UInt8(truncatingIfNeeded: value >> (8 * i))) }
    }

    /// Overwrites the four bytes at `offset`.
    mutating func put(_ value: UInt32, at offset: Int) {
        for i in 0..<4 { self[offset + i] = UInt8(truncatingIfNeeded: value >> (8 * i)) }
    }

    /// Appends zeros until the count is a multiple of `size`.
    mutating func pad(to size: Int) {
        let excess = count % size
        if excess != 0 { append(contentsOf: [UInt8](repeating: 0, count: size - excess)) }
    }
}

/// CRC-32C.
enum Checksum {
    /// The checksum of `bytes[range]`, going on from `seed`.
    ///
    /// - Complexity: O(bytes)
    static func of(_ bytes: [UInt8], _ range: Range<Int>, seed: UInt32) -> UInt32 {
        precondition(range.upperBound <= bytes.count, "a checksum stays within its bytes")
        return bytes.withUnsafeBytes { buffer in
            tidegate_crc32c(seed, UnsafeRawBufferPointer(rebasing: buffer[range]).baseAddress, range.count)
        }
    }

    /// The seed of what stands in the file `number` of a store from byte `offset` on: what was written into another
    /// file, by another store or to another place never verifies there, and nobody who does not know the store's
    /// random id can make a payload that looks like a batch.
    ///
    /// Two pages of one file never have the same seed: their offsets differ in at most 32 bits in a row.
    static func seed(_ store: StoreID, _ number: UInt64, offset: Int) -> UInt32 {
        var salt = store.bytes
        salt.append(fixed: number)
        salt.append(fixed: UInt64(offset))
        return of(salt, 0..<salt.count, seed: 0)
    }
}

/// Everything is laid out in pages of this many bytes: a torn write never reaches into a page that was
/// durable before it.
package let pageBytes = 4096

/// `count` rounded up to whole pages.
func wholePages(_ count: Int) -> Int { (count + pageBytes - 1) / pageBytes * pageBytes }
