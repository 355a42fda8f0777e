import Roles
import ServingTypes

/// Members, views, readings and faults of a simulated cluster.
extension ServingRun {
    func add(_ machine: MachinePlan, incarnation: UInt64) {
        let limits = plan.workerLimits(machine)
        let address = NetworkAddress(host: machine.name, port: 1)
        let description = InstanceDescription(
            instance: InstanceID(machine.name), role: machine.processRole,
            incarnation: incarnation, host: machine.host ?? machine.name, controlAddress: address,
            bulkAddress: address, modelName: Self.model, fingerprint: Self.fingerprint,
            contextTokens: limits.contextTokens, kvBytesPerToken: limits.kvBytesPerToken,
            kvCapacityBytes: limits.kvCapacityTokens * limits.kvBytesPerToken,
            prefillSlots: limits.prefillSlots, decodeSequences: limits.decodeSequences,
            device: machine.device, initialRole: machine.role)
        instances[description.instance] = SimulatedInstance(
            description, machine: machine, run: self)
    }

    func showWholeView() {
        viewVersion += 1
        let members = order.compactMap { instances[$0] }.map {
            GroupMember(description: $0.description, state: .serving, status: $0.status())
        }
        forgetChanges()
        let view = GroupView(epoch: 1, version: viewVersion, members: members)
        for index in gateways.indices {
            perform(gateways[index].viewChanged(view, now: now), index)
        }
    }

    func noteChange(of instance: SimulatedInstance) { changed.append(instance) }

    private func forgetChanges() {
        for instance in changed { instance.isChanged = false }
        changed.removeAll(keepingCapacity: true)
    }

    /// What changed since the last view.
    func showReadings() {
        guard !changed.isEmpty else { return }
        viewVersion += 1
        let readings = changed.filter { !$0.isLost }
            .map { MemberReading(instance: $0.name, status: $0.status()) }
            .sorted { $0.instance < $1.instance }
        forgetChanges()
        for index in gateways.indices {
            gateways[index].readingsChanged(readings, version: viewVersion)
        }
    }

    // MARK: Faults

    func happen(_ fault: MachineFault) {
        let name = InstanceID(fault.machine)
        guard let instance = instances[name] else { return }
        switch fault.kind {
        case .lost(let back): lose(instance, backAfterSeconds: back)
        case .slow(let factor, let seconds):
            instance.slowdown = factor
            after(seconds) { instance.slowdown = 1 }
        case .slowLink(let factor, let seconds):
            instance.outward.slowdown = factor
            instance.inward.slowdown = factor
            after(seconds) {
                instance.outward.slowdown = 1
                instance.inward.slowdown = 1
            }
        }
    }

    private func lose(_ instance: SimulatedInstance, backAfterSeconds: Double?) {
        instance.end()
        let name = instance.name
        instances[name] = nil
        if instance.plan.role == .prefill {
            lostBusy.prefill += instance.busySeconds
        } else {
            lostBusy.decode += instance.busySeconds
        }
        after(plan.network.noticeSeconds) { [self] in
            for index in gateways.indices {
                perform(gateways[index].disconnected(name, now: now), index)
            }
            for other in order { instances[other]?.lost(name) }
            showWholeView()
        }
        guard let backAfterSeconds else { return }
        after(max(backAfterSeconds, 2 * plan.network.noticeSeconds)) { [self] in
            add(instance.plan, incarnation: instance.description.incarnation + 1)
            showWholeView()
            for index in gateways.indices {
                perform(gateways[index].connected(name, now: now), index)
            }
        }
    }

    // MARK: Timeline

    func busyTimes() -> BusyTimes {
        var busy = lostBusy
        // In one order, for sums of fractions depend on it.
        for instance in order.compactMap({ instances[$0] }) {
            if instance.description.role == .prefillWorker {
                busy.prefill += instance.busySeconds
                busy.link += instance.outward.busySeconds
            } else {
                busy.decode += instance.busySeconds
            }
        }
        return busy
    }

    func notePoint(step: Double) {
        let busy = busyTimes()
        let prefill = Double(max(1, plan.machines.count { $0.role == .prefill })) * step
        let others = max(1, plan.machines.count { $0.role != .prefill })
        var point = Timeline.Point(seconds: now.seconds)
        // An iteration counts when it ends, and may have begun in the step before.
        point.prefillBusy = min(1, (busy.prefill - lastBusy.prefill) / prefill)
        point.decodeBusy = min(1, (busy.decode - lastBusy.decode) / (Double(others) * step))
        point.linkBusy = min(1, (busy.link - lastBusy.link) / prefill)
        lastBusy = busy
        for instance in order.compactMap({ instances[$0] })
        where instance.plan.role != .prefill {
            point.kvUsed += instance.kvUsed / Double(others)
        }
        point.answering = clients.values.count { $0.outcome.ttft != nil }
        point.waiting = clients.count - point.answering
        timeline.points.append(point)
    }
}
