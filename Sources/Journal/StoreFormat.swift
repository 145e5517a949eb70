/// The file `FORMAT`: what a store is, written once when it is created.
///
/// A version that does not know one of the `incompatible` bits must not touch the store; unknown
/// `readOnlyCompatible` bits allow reading only; unknown `compatible` bits may be ignored.
package struct StoreFormat: Hashable, Sendable {
    package var store: StoreID
    package var major: UInt16
    package var minor: UInt16
    package var compatible: UInt32
    package var readOnlyCompatible: UInt32
    package var incompatible: UInt32
    /// Wall clock of the creator, in milliseconds since 1970; for people only.
    package var createdWallMilliseconds: Int64

    /// A new store of the version that this code writes.
    package init(store: StoreID, createdWallMilliseconds: Int64) {
        self.store = store
        major = Self.currentMajor
        minor = Self.currentMinor
        compatible = 0
        readOnlyCompatible = 0
        incompatible = 0
        self.createdWallMilliseconds = createdWallMilliseconds
    }

    /// 1 was never released. Its checksums did not know the place they stand at, so that nothing in it verifies.
    package static let currentMajor: UInt16 = 2
    package static let currentMinor: UInt16 = 0
    /// None yet. This code writes to a store, so that an unknown `readOnlyCompatible` bit stops it too.
    static let knownIncompatible: UInt32 = 0
    static let knownReadOnlyCompatible: UInt32 = 0

    private static let magic = Array("TIDEGATE".utf8)
    private static let size = 64

    package var encoded: [UInt8] {
        var bytes = Self.magic
        bytes.append(fixed: UInt32(0))
        bytes.append(fixed: major)
        bytes.append(fixed: minor)
        bytes.append(fixed: compatible)
        bytes.append(fixed: readOnlyCompatible)
        bytes.append(fixed: incompatible)
        bytes.append(fixed: UInt32(pageBytes))
        bytes.append(contentsOf: store.bytes)
        bytes.append(fixed: createdWallMilliseconds)
        bytes.pad(to: Self.size)
        bytes.put(Checksum.of(bytes, 12..<Self.size, seed: 0), at: 8)
        return bytes
    }

    package init(decoding bytes: [UInt8]) throws(DecodingError) {
        guard bytes.count >= Self.size else { throw .truncated }
        guard bytes.starts(with: Self.magic) else { throw .wrongMagic }
        var reader = ByteReader(bytes, 8..<Self.size)
        guard try reader.fixed(UInt32.self) == Checksum.of(bytes, 12..<Self.size, seed: 0) else {
            throw .wrongChecksum
        }
        major = try reader.fixed(UInt16.self)
        minor = try reader.fixed(UInt16.self)
        compatible = try reader.fixed(UInt32.self)
        readOnlyCompatible = try reader.fixed(UInt32.self)
        incompatible = try reader.fixed(UInt32.self)
        let page = try reader.fixed(UInt32.self)
        guard let store = StoreID(try reader.take(16)) else { throw .truncated }
        self.store = store
        createdWallMilliseconds = try reader.fixed(Int64.self)
        guard major == Self.currentMajor else { throw .unknownFeatures(UInt32(major) << 16) }
        let unknown =
            incompatible & ~Self.knownIncompatible | readOnlyCompatible & ~Self.knownReadOnlyCompatible
        guard unknown == 0 else { throw .unknownFeatures(unknown) }
        guard page == UInt32(pageBytes) else { throw .invalidField }
    }
}
