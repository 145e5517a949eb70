/// The random identity of a store, drawn once when it is created.
package struct StoreID: Hashable, Sendable {
    /// 16 bytes.
    package let bytes: [UInt8]

    /// nil unless there are 16 bytes.
    package init?(_ bytes: some Collection<UInt8>) {
        guard bytes.count == 16 else { return nil }
        self.bytes = Array(bytes)
    }
}

/// The files of a store that the journal names.
package enum StoreFile: Hashable, Sendable {
    case format
    case segment(UInt64)
    /// Stands for every Record up to this position.
    case checkpoint(UInt64)
    /// A segment that nobody needs any more, kept for its blocks; numbered as the segment it was.
    case free(UInt64)
    /// What was still owed of neighbouring segments; numbered as segments are, with a number of its own.
    case merged(UInt64)
    /// One that is being written: its temporary name.
    case mergedPart(UInt64)
    /// Bytes that are given up when the disk is full, so that what frees space can still be written.
    case reserve

    package var name: String {
        switch self {
        case .format: "FORMAT"
        case .segment(let id): "seg-" + Self.hexadecimal(id) + ".log"
        case .checkpoint(let position): "ckpt-" + Self.hexadecimal(position)
        case .free(let id): "free-" + Self.hexadecimal(id) + ".log"
        case .merged(let id): "old-" + Self.hexadecimal(id) + ".log"
        case .mergedPart(let id): StoreFile.merged(id).temporaryName
        case .reserve: "reserve"
        }
    }

    /// Whether it is a file of the log itself, or of what stands for some of it.
    package var isOfLog: Bool {
        switch self {
        case .segment, .merged, .checkpoint: true
        case .format, .free, .reserve, .mergedPart: false
        }
    }

    /// Whether there may be a log in this file, or its own word on whose store it is. What a power cut left of the first
    /// page of a segment while it was created has neither: nothing was promised by it.
    ///
    /// - Parameter beginning: its first page and a byte more, as far as they are there.
    package func mayHoldLog(beginning: [UInt8]) -> Bool {
        guard case .segment(let id) = self, beginning.count <= pageBytes else { return isOfLog }
        do { _ = try SegmentHeader(decoding: beginning, segment: id) } catch .unknownFeatures {
            return true
        } catch {
            return false
        }
        return true
    }

    /// What a file is written under until it is whole.
    package var temporaryName: String { name + Self.temporarySuffix }
    package static let temporarySuffix = ".tmp"

    /// nil for a name that is not of this kind, or temporary.
    package init?(name: String) {
        if name == "FORMAT" {
            self = .format
        } else if name.hasPrefix("seg-"), name.hasSuffix(".log") {
            guard let id = Self.segment(name.utf8.dropFirst(4).dropLast(4)) else { return nil }
            self = .segment(id)
        } else if name.hasPrefix("free-"), name.hasSuffix(".log") {
            guard let id = Self.segment(name.utf8.dropFirst(5).dropLast(4)) else { return nil }
            self = .free(id)
        } else if name.hasPrefix("old-"), name.hasSuffix(".log") {
            guard let id = Self.segment(name.utf8.dropFirst(4).dropLast(4)) else { return nil }
            self = .merged(id)
        } else if name == "reserve" {
            self = .reserve
        } else if name.hasPrefix("ckpt-") {
            guard let position = Self.number(name.utf8.dropFirst(5)) else { return nil }
            self = .checkpoint(position)
        } else {
            return nil
        }
    }

    private static func hexadecimal(_ number: UInt64) -> String {
        let digits = String(number, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }

    /// Segments are numbered from 1.
    private static func segment(_ digits: some Collection<UInt8>) -> UInt64? {
        number(digits).flatMap { $0 > 0 ? $0 : nil }
    }

    /// Exactly 16 lower-case digits, so that a number has one name, and far enough from the top to be counted on
    /// from.
    private static func number(_ digits: some Collection<UInt8>) -> UInt64? {
        guard digits.count == 16 else { return nil }
        var number: UInt64 = 0
        for digit in digits {
            switch digit {
            case UInt8(ascii: "0")...UInt8(ascii: "9"):
                number = number << 4 | UInt64(digit - UInt8(ascii: "0"))
            case UInt8(ascii: "a")...UInt8(ascii: "f"):
                number = number << 4 | UInt64(digit - UInt8(ascii: "a") + 10)
            default: return nil
            }
        }
        return number < countableLimit ? number : nil
    }
}

/// Numbers of segments, positions, deliveries and Sessions that were read from a disk, and clocks in milliseconds, are
/// below this, so that counting on never overflows.
let countableLimit: UInt64 = 1 << 62
