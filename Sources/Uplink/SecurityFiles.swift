import Glibc
import NIOSSL

/// The files that secure an uplink, read again when they have changed.
///
/// Reading blocks the caller for as long as the disk and the certificates take, milliseconds, and only when
/// there is something new to read.
///
/// *Memory.* Some 50 KiB for each uplink and its connection, and about a megabyte more where the system's roots are
/// trusted instead of a file.
struct SecurityFiles {
    private let security: UplinkSecurity
    /// What the files were when they were last read, with or without success.
    private var stamps: [FileStamp?]?
    /// Our certificate and key as they are in use.
    private var identity: [FileStamp?] = []
    /// For new connections; nil until the files were read with success once.
    private(set) var context: NIOSSLContext?
    /// Why the files cannot be used as they are now.
    private(set) var fault: String?

    init(_ security: UplinkSecurity) {
        self.security = security
    }

    /// What a look at the files found.
    enum Look: Equatable {
        case unchanged
        /// What is trusted has changed: connections to come will mind it.
        case trustChanged
        /// Our own certificate or key has changed.
        case identityChanged
        /// They cannot be used as they are now; what was read before stays in use. Said once for each state
        /// they are found in.
        case unusable(String)
    }

    /// Reads the files again if they are not what they were.
    mutating func look() -> Look {
        let own = [security.certificateFile, security.keyFile].map { $0.flatMap(FileStamp.init) }
        let now = own + [security.authorityFile.flatMap(FileStamp.init)]
        guard now != stamps else { return .unchanged }
        stamps = now
        do throws(UnusableFile) {
            context = try Self.context(security)
            fault = nil
        } catch {
            fault = error.words
            return .unusable(error.words)
        }
        defer { identity = own }
        return own == identity ? .trustChanged : .identityChanged
    }

    private static func context(_ security: UplinkSecurity) throws(UnusableFile) -> NIOSSLContext {
        var configuration = TLSConfiguration.makeClientConfiguration()
        configuration.certificateVerification = .fullVerification
        configuration.applicationProtocols = security.protocols
        switch security.minimumVersion {
        case .tls12: configuration.minimumTLSVersion = .tlsv12
        case .tls13: configuration.minimumTLSVersion = .tlsv13
        }
        if let file = security.authorityFile {
            configuration.trustRoots = .certificates(try certificates(in: file))
        }
        if let file = security.certificateFile {
            configuration.certificateChain = try certificates(in: file).map { .certificate($0) }
        }
        if let file = security.keyFile {
            do {
                configuration.privateKey = .privateKey(try NIOSSLPrivateKey(file: file, format: .pem))
            } catch {
                throw UnusableFile("\(file) holds no private key that can be read")
            }
        }
        do {
            return try NIOSSLContext(configuration: configuration)
        } catch {
            guard let certificate = security.certificateFile, let key = security.keyFile else {
                throw UnusableFile("TLS cannot be set up: \(error)")
            }
            throw UnusableFile(
                "the certificate in \(certificate) and the key in \(key) do not belong together")
        }
    }

    private static func certificates(in file: String) throws(UnusableFile) -> [NIOSSLCertificate] {
        var found: [NIOSSLCertificate] = []
        do {
            found = try NIOSSLCertificate.fromPEMFile(file)
        } catch {
            throw UnusableFile("\(file) holds no certificate that can be read")
        }
        guard !found.isEmpty else { throw UnusableFile("there is no certificate in \(file)") }
        return found
    }

    private struct UnusableFile: Error {
        let words: String
        init(_ words: String) { self.words = words }
    }
}

/// What tells a file from the one that was there before it, without reading it.
private struct FileStamp: Equatable {
    private let device: UInt64
    private let inode: UInt64
    private let size: Int
    private let seconds: Int
    private let nanoseconds: Int

    /// nil when it is not there, or not to be seen.
    init?(_ path: String) {
        var found = stat()
        guard stat(path, &found) == 0 else { return nil }
        device = UInt64(found.st_dev)
        inode = UInt64(found.st_ino)
        size = Int(found.st_size)
        seconds = found.st_mtim.tv_sec
        nanoseconds = found.st_mtim.tv_nsec
    }
}
