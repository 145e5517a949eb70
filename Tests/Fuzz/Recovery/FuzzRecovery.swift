import Glibc

/// The memory a recovery takes beyond what each byte of the files may take: windows into segments, and its own.
private let ownBytesMax = 1 << 20
/// What a byte on disk may take once it is read. Targets of a message, three bytes each, take the most: 80 bytes each
/// in a list that grows by doubling, and an entry in a queue.
private let bytesPerByteMax = 160

/// Writes inputs to start from into the directory that SEEDS names, if it names one, and ends.
@_cdecl("LLVMFuzzerInitialize")
public func begin(
    _ count: UnsafeMutablePointer<CInt>?, _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<CChar>>?
) -> CInt {
    guard let path = getenv("SEEDS").map({ String(cString: $0) }) else { return 0 }
    for (index, seed) in FuzzedStore.seeds.enumerated() {
        guard let file = fopen("\(path)/store-\(index)", "w") else { fatalError("cannot write to \(path)") }
        fwrite(seed, 1, seed.count, file)
        fclose(file)
    }
    exit(0)
}

/// What libFuzzer calls with one input after the other. A broken rule stops the process, which makes libFuzzer
/// keep the input.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzRecovery(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    guard let store = FuzzedStore(Array(UnsafeBufferPointer(start: start, count: count))) else { return -1 }
    let allowed = ownBytesMax + bytesPerByteMax * store.bytes
    let peak = Memory.peak { store.recoverAndForget() }
    if peak > allowed { fatalError("\(peak) bytes were allocated where \(allowed) are allowed") }
    if let rule = store.brokenRule() { fatalError(rule) }
    return 0
}
