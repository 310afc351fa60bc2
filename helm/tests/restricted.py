"""The restricted standard (Kubernetes documentation, "Pod Security Standards"), as a list of what breaks it."""

VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def violations(spec):
    """What in the specification of a pod breaks the standard, or the two rules that this project adds to it."""
    found = [key for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key)]
    of_pod = spec.get("securityContext", {})
    found += [key for key in ("sysctls", "windowsOptions", "seLinuxOptions", "appArmorProfile") if key in of_pod]
    for volume in spec.get("volumes", []):
        found += [f"volume {kind}" for kind in volume.keys() - {"name"} - VOLUMES]
    kinds = ("containers", "initContainers", "ephemeralContainers")
    for container in [container for kind in kinds for container in spec.get(kind, [])]:
        context = container.get("securityContext", {})
        profile = context.get("seccompProfile", of_pod.get("seccompProfile", {}))
        capabilities = context.get("capabilities", {})
        rules = {
            "privileged": not context.get("privileged"),
            "allowPrivilegeEscalation": context.get("allowPrivilegeEscalation") is False,
            "runAsNonRoot": context.get("runAsNonRoot", of_pod.get("runAsNonRoot")) is True,
            "runAsUser": context.get("runAsUser", of_pod.get("runAsUser")) != 0,
            "seccompProfile": profile.get("type") in ("RuntimeDefault", "Localhost"),
            "drop ALL": "ALL" in capabilities.get("drop", []),
            "add": set(capabilities.get("add", [])) <= {"NET_BIND_SERVICE"},
            "hostPort": not any(port.get("hostPort") for port in container.get("ports", [])),
            "procMount": context.get("procMount", "Default") == "Default",
            "hooks and probes name no host": not any(
                isinstance(value, dict) and value.get("host") for value in flatten(container)
            ),
            # Beyond the standard.
            "readOnlyRootFilesystem": context.get("readOnlyRootFilesystem") is True,
        }
        found += [rule for rule, holds in rules.items() if not holds]
    # Beyond the standard: nothing here talks to the API server.
    if spec.get("automountServiceAccountToken") is not False:
        found.append("automountServiceAccountToken")
    return found


def flatten(value):
    """The value and all that is inside it."""
    yield value
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    for one in inner:
        yield from flatten(one)
