import Disk
import GatewayCore
import Glibc
import Journal
import NIOCore
import NIOPosix
import Operations
import Settings
import Transport
import Uplink

/// Recovers the store, starts everything, and waits for a signal; the process ends with an `ExitStatus`.
///
/// Three threads: this one waits for signals, one runs the loop with everything in it, one writes to the disk. A fourth
/// sleeps until the settings are to be read again.
func serve(_ checked: CheckedSettings, from source: SettingsSource) -> Never {
    var signals = Signals()
    let loop = MultiThreadedEventLoopGroup(numberOfThreads: 1).next()
    let host = NIOLoopBoundBox<Host?>.makeEmptyBox(valueType: Host.self, eventLoop: loop)
    // Recovery has the loop for itself: there is nobody to serve before it is done.
    loop.execute {
        do throws(StartFailure) {
            let started = try Start(checked, source).makeHost(loop, host)
            host.value = started
            started.start()
        } catch {
            complain(error.line)
            _exit(error.status.rawValue)
        }
    }
    // Before there is a host, the loop is busy recovering, and this waits behind it.
    while signals.wait() == .reload { loop.execute { host.value?.reload() } }
    loop.execute { host.value?.stop() }
    while signals.wait() == .reload {}
    complain("stopped at once, as asked twice")
    // Not exit(3): the loop's thread may be in the middle of anything.
    _exit(ExitStatus.failed.rawValue)
}

/// Writes a line to stderr.
func complain(_ line: String) {
    let bytes = Array("\(line)\n".utf8)
    _ = write(STDERR_FILENO, bytes, bytes.count)
}

/// One line for the person who started the gateway, and what systemd makes of it.
struct StartFailure: Error {
    let line: String
    let status: ExitStatus
}

/// Everything that must have gone well before there is a host.
private struct Start {
    private let checked: CheckedSettings
    private let source: SettingsSource
    private let store: DiskStore
    private let state: DurableState

    init(_ checked: CheckedSettings, _ source: SettingsSource) throws(StartFailure) {
        self.checked = checked
        self.source = source
        let settings = checked.settings
        do throws(StoreError) {
            (store, state) = try DiskStore.recover(
                path: settings.state, allowVolatile: settings.journal.allowsVolatile)
        } catch {
            throw StartFailure(line: "\(error)", status: error.exitStatus)
        }
    }

    func makeHost(_ loop: any EventLoop, _ box: NIOLoopBoundBox<Host?>) throws(StartFailure) -> Host {
        let settings = checked.settings
        var log = Log()
        for warning in store.warnings { log.write(LogLine(.warning, .storage, warning)) }
        for line in store.recovered.report.lines { log.write(line) }
        let connectionsMax = Descriptors.takeAll().connectionsMax(
            listeners: settings.listeners.count, uplinks: settings.uplinks.count)
        if connectionsMax < settings.limits.connections {
            log.write(
                LogLine(
                    .warning, .gateway,
                    "at most \(connectionsMax) clients are let in, not the \(settings.limits.connections) of "
                        + "limits.connections: this process may not have more files open (LimitNOFILE= of the "
                        + "unit, or ulimit -Hn)"))
        }
        let disk: DiskThread
        do throws(StoreError) {
            disk = try store.start { completions in
                loop.execute { box.value?.completed(completions) }
            }
        } catch {
            throw StartFailure(line: "\(error)", status: error.exitStatus)
        }
        let clock = LogicalClock(after: store.recovered)
        if let line = LogLine(clock.resumed) { log.write(line) }
        var effects: [Effect] = []
        let gateway = Gateway(
            plan: GatewayPlan(settings), state: state, lastPosition: store.recovered.last,
            stoppedAt: store.recovered.clock, now: clock.now, into: &effects)
        return Host(
            loop: loop, clock: clock, gateway: gateway, effects: effects,
            journal: Journal(
                plan: JournalPlan(settings.journal), recovered: store.recovered, resumed: clock.resumed),
            witness: WallWitness(anchor: store.recovered.anchor, unproven: clock.resumed.unproven),
            settings: checked, settingsReader: SettingsReader(source),
            connectionsMax: connectionsMax, log: log, notifier: ServiceNotifier(),
            submit: { disk.submit($0) }, end: { _exit($0.rawValue) })
    }
}

extension StoreError {
    /// Whether systemd starting the gateway again may help.
    fileprivate var exitStatus: ExitStatus {
        switch self {
        case .volatileFileSystem, .unknownFeatures, .unknownRecordType, .foreignDirectory, .noStore:
            .configuration
        case .locked, .cannot: .failed
        }
    }
}

extension RecoveryReport {
    /// What an operator should know about what recovery found.
    fileprivate var lines: [LogLine] {
        var lines: [LogLine] = []
        for tail in tornTails {
            lines.append(
                LogLine(.notice, .storage, "\(tail.file): an unfinished write at its end was left out"))
        }
        for range in damaged {
            lines.append(
                LogLine(
                    .error, .storage,
                    "\(range.file) is damaged at bytes \(range.bytes.lowerBound) to \(range.bytes.upperBound); "
                        + "the rest is served"))
        }
        for positions in lost {
            lines.append(
                LogLine(
                    .error, .storage, "records \(positions.lowerBound) to \(positions.upperBound) are lost"))
        }
        for file in setAside {
            lines.append(LogLine(.error, .storage, "\(file) cannot be read and was put into quarantine/"))
        }
        if formatIsDamaged {
            lines.append(
                LogLine(.error, .storage, "FORMAT is damaged; the store was identified by its segments"))
        }
        return lines
    }
}
